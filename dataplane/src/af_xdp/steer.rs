//! The steering program: loaded once a port, told what is the box's, attached as long as the port lives.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use aya::maps::{Array, HashMap, MapData, MapError, XskMap};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfError};
use mimbox_stack::wire::MacAddr;

use super::{AttachMode, Take};
use crate::port::PortError;

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// Flags of `struct port` in steer.bpf.c.
const ALL_IP: u32 = 1;
const EVERYTHING: u32 = 2;

/// A loaded program with its maps. Dropping it detaches it; the kernel does so too when the process dies, because the
/// attachment is a BPF link that only this process holds.
#[derive(Debug)]
pub(super) struct Steering {
    bpf: Ebpf,
    interface: String,
}

/// What is the box's on a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steered<'a> {
    pub(super) mac: MacAddr,
    pub(super) take: Take,
    pub(super) addresses: &'a [IpAddr],
}

impl Steering {
    /// Loads the program and fills its maps.
    pub(super) fn load(interface: &str, what: &Steered<'_>) -> Result<Self, PortError> {
        let bpf = Ebpf::load(PROGRAM).map_err(|error| match system_error(&error) {
            Some(libc::EPERM | libc::EACCES) => {
                PortError::NoPrivilege { doing: "loading the steering program", interface: interface.to_owned() }
            }
            _ => steering("loaded", interface, &error),
        })?;
        let mut this = Self { bpf, interface: interface.to_owned() };
        this.fill(what).map_err(|error| steering("told its addresses", interface, &error))?;
        Ok(this)
    }

    fn fill(&mut self, what: &Steered<'_>) -> Result<(), MapError> {
        let mut value = [0u8; 12];
        let flags = match what.take {
            Take::Own => 0,
            Take::Routed => ALL_IP,
            Take::All => EVERYTHING,
        };
        value[..4].copy_from_slice(&flags.to_ne_bytes());
        value[4..10].copy_from_slice(&what.mac.0);
        Array::<_, [u8; 12]>::try_from(self.map("ports")?)?.set(0, value, 0)?;
        let mut v4 = HashMap::<_, [u8; 4], u8>::try_from(self.map("addresses_v4")?)?;
        for address in what.addresses {
            if let IpAddr::V4(address) = address {
                v4.insert(address.octets(), 1, 0)?;
            }
        }
        let mut v6 = HashMap::<_, [u8; 16], u8>::try_from(self.map("addresses_v6")?)?;
        for address in what.addresses {
            if let IpAddr::V6(address) = address {
                v6.insert(address.octets(), 1, 0)?;
            }
        }
        Ok(())
    }

    fn map(&mut self, name: &'static str) -> Result<&mut aya::maps::Map, MapError> {
        self.bpf.map_mut(name).ok_or(MapError::InvalidName { name: name.to_owned() })
    }

    /// Sends what is steered on `queue` to `socket`.
    pub(super) fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), PortError> {
        let result = (|| XskMap::<&mut MapData>::try_from(self.map("sockets")?)?.set(queue, socket, 0))();
        result.map_err(|error: MapError| steering("told its socket", &self.interface, &error))
    }

    /// Attaches the program; says whether it runs in the driver, and if not, why.
    ///
    /// # Errors
    /// [`PortError::Busy`] when another program is there, which may pass: the last process's is detached a moment after
    /// its end.
    pub(super) fn attach(&mut self, index: u32, mode: AttachMode) -> Result<Result<(), String>, PortError> {
        let interface = self.interface.clone();
        let program: &mut Xdp = match self.bpf.program_mut("steer").map(TryInto::try_into) {
            Some(Ok(program)) => program,
            _ => return Err(steering("found", &interface, &"the object holds no XDP program `steer`")),
        };
        if program.fd().is_err() {
            program.load().map_err(|error| match program_error(&error) {
                Some(libc::EPERM | libc::EACCES) => {
                    PortError::NoPrivilege { doing: "loading the steering program", interface: interface.clone() }
                }
                _ => steering("loaded", &interface, &error),
            })?;
        }
        let attempts: &[(XdpMode, bool)] = match mode {
            AttachMode::Auto => &[(XdpMode::Driver, true), (XdpMode::Skb, false)],
            AttachMode::Native => &[(XdpMode::Driver, true)],
            AttachMode::Generic => &[(XdpMode::Skb, false)],
        };
        let mut last = None;
        for &(mode, native) in attempts {
            match program.attach_to_if_index(index, mode) {
                Ok(_link) if native => return Ok(Ok(())),
                Ok(_link) => {
                    let why = last.map(|error| format!("the driver refused it ({error})"));
                    return Ok(Err(why.unwrap_or_else(|| "`mode` asks for generic XDP".to_owned())));
                }
                Err(error) => match program_error(&error) {
                    Some(libc::EBUSY | libc::EEXIST) => {
                        return Err(PortError::Busy { interface, waited_ms: 0 });
                    }
                    Some(libc::EPERM | libc::EACCES) => {
                        return Err(PortError::NoPrivilege { doing: "attaching the steering program", interface });
                    }
                    _ => last = Some(error),
                },
            }
        }
        match last {
            Some(error) => Err(steering("attached", &interface, &error)),
            None => Err(steering("attached", &interface, &"no mode was tried")),
        }
    }
}

fn steering(doing: &'static str, interface: &str, error: &dyn std::fmt::Display) -> PortError {
    PortError::Steering { doing, interface: interface.to_owned(), reason: error.to_string() }
}

/// What the system call at the bottom of an error said.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        next = error.source();
    }
    None
}

fn system_error(error: &EbpfError) -> Option<i32> {
    errno(error)
}

fn program_error(error: &ProgramError) -> Option<i32> {
    errno(error)
}
