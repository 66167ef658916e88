//! The client's side of explicit mode: connections of one control group go to the box, and their SYNs name the server.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, SockOps};
use aya::{Ebpf, include_bytes_aligned};

use super::namespace::run;
use super::plan::{Family, Path, Plan};
use super::process::wrap;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dst_opt.bpf.o"));

/// Size of `struct settings` in the BPF program.
const SETTINGS_LEN: usize = 28;

/// Where connections are sent and how the option is marked.
#[derive(Clone, Debug)]
pub struct DstOptSettings {
    /// The box's address for connections over IPv4; `None` leaves those alone.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The box's port; `None` keeps the server's, so that the option need not name it.
    pub port: Option<u16>,
    /// Experiment identifier of the option (RFC 6994).
    pub exid: u16,
    /// Destinations that are reached directly, the box's own addresses among them.
    pub direct_ipv4: Vec<(Ipv4Addr, u8)>,
    /// The same for IPv6.
    pub direct_ipv6: Vec<(Ipv6Addr, u8)>,
}

impl DstOptSettings {
    /// What the lab's client uses: everything but its own networks goes to the box's address on the first path.
    pub fn for_lab() -> Self {
        let mut settings = Self {
            ipv4: None,
            ipv6: None,
            port: None,
            exid: 0x4d42,
            direct_ipv4: vec![(Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::UNSPECIFIED, 32)],
            direct_ipv6: vec![(Ipv6Addr::LOCALHOST, 128), (Ipv6Addr::UNSPECIFIED, 128)],
        };
        for family in [Family::V4, Family::V6] {
            let direct = Path::BOTH.map(|path| Plan::box_wan(path, family)).into_iter();
            for (network, prefix) in direct.map(|address| (address, Plan::prefix(address))) {
                match network {
                    IpAddr::V4(network) => settings.direct_ipv4.push((network, prefix)),
                    IpAddr::V6(network) => settings.direct_ipv6.push((network, prefix)),
                }
            }
            match Plan::box_wan(Path::First, family) {
                IpAddr::V4(address) => settings.ipv4 = Some(address),
                IpAddr::V6(address) => settings.ipv6 = Some(address),
            }
        }
        settings
    }

    /// The bytes of `struct settings`.
    fn encode(&self) -> [u8; SETTINGS_LEN] {
        let mut bytes = [0; SETTINGS_LEN];
        let mut families = 0u32;
        if let Some(address) = self.ipv4 {
            bytes[0..4].copy_from_slice(&address.octets());
            families |= 1;
        }
        if let Some(address) = self.ipv6 {
            bytes[4..20].copy_from_slice(&address.octets());
            families |= 2;
        }
        bytes[20..22].copy_from_slice(&self.exid.to_ne_bytes());
        bytes[22..24].copy_from_slice(&self.port.unwrap_or(0).to_ne_bytes());
        bytes[24..28].copy_from_slice(&families.to_ne_bytes());
        bytes
    }
}

/// A control group whose processes connect through the box.
pub struct DstOpt {
    group: PathBuf,
    programs: Option<Ebpf>,
    links: Vec<FdLink>,
    keep: bool,
}

impl std::fmt::Debug for DstOpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DstOpt").field("group", &self.group).finish_non_exhaustive()
    }
}

impl DstOpt {
    /// Makes a control group of this name and attaches the programs to it.
    pub fn attach(name: &str, settings: &DstOptSettings) -> Result<Self> {
        let group = cgroup2_mount()?.join(name);
        fs::create_dir(&group).with_context(|| format!("cannot make the control group {}", group.display()))?;
        let mut this = Self { group, programs: None, links: Vec::new(), keep: false };
        this.load(settings).context("cannot set up the client's Dst Opt programs")?;
        Ok(this)
    }

    fn load(&mut self, settings: &DstOptSettings) -> Result<()> {
        let mut ebpf = Ebpf::load(OBJECT).context("the kernel did not take the BPF object")?;
        let mut array: Array<_, [u8; SETTINGS_LEN]> = Array::try_from(map(&mut ebpf, "SETTINGS")?)?;
        array.set(0, settings.encode(), 0)?;
        let mut direct: LpmTrie<_, [u8; 4], u32> = LpmTrie::try_from(map(&mut ebpf, "DIRECT4")?)?;
        for (network, prefix) in &settings.direct_ipv4 {
            direct.insert(&Key::new(u32::from(*prefix), network.octets()), 1, 0)?;
        }
        let mut direct: LpmTrie<_, [u8; 16], u32> = LpmTrie::try_from(map(&mut ebpf, "DIRECT6")?)?;
        for (network, prefix) in &settings.direct_ipv6 {
            direct.insert(&Key::new(u32::from(*prefix), network.octets()), 1, 0)?;
        }

        let group = File::open(&self.group)?;
        for name in ["dst_opt_connect4", "dst_opt_connect6"] {
            let program: &mut CgroupSockAddr = ebpf.program_mut(name).ok_or_else(|| missing(name))?.try_into()?;
            program.load().with_context(|| format!("the verifier refused {name}"))?;
            let id = program.attach(&group, CgroupAttachMode::Single)?;
            self.links.push(program.take_link(id)?.try_into()?);
        }
        let name = "dst_opt_sockops";
        let program: &mut SockOps = ebpf.program_mut(name).ok_or_else(|| missing(name))?.try_into()?;
        program.load().with_context(|| format!("the verifier refused {name}"))?;
        let id = program.attach(&group, CgroupAttachMode::Single)?;
        self.links.push(program.take_link(id)?.try_into()?);
        self.programs = Some(ebpf);
        Ok(())
    }

    /// The control group's directory.
    pub fn group(&self) -> &FilePath {
        &self.group
    }

    /// A command that runs in the control group.
    pub fn wrap(&self, command: &Command) -> Command {
        let procs = self.group.join("cgroup.procs");
        // The shell becomes a member and then becomes the program.
        wrap("sh", &["-c".as_ref(), r#"echo $$ > "$0" && exec "$@""#.as_ref(), procs.as_os_str()], command)
    }

    /// Pins the programs below `directory`, so that they outlive this process.
    pub fn keep(&mut self, directory: &FilePath) -> Result<()> {
        fs::create_dir_all(directory)?;
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory))
            .context("cannot mount a BPF filesystem")?;
        for (index, link) in self.links.drain(..).enumerate() {
            link.pin(directory.join(format!("link{index}"))).context("cannot pin a BPF link")?;
        }
        self.keep = true;
        Ok(())
    }
}

impl Drop for DstOpt {
    fn drop(&mut self) {
        self.links.clear();
        self.programs = None;
        if !self.keep {
            remove_group(&self.group);
        }
    }
}

/// Removes a control group; processes that just ended may still hold it for a moment.
pub(crate) fn remove_group(group: &FilePath) {
    for _ in 0..100 {
        match fs::remove_dir(group) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    eprintln!("control group {} is still in use: not removed", group.display());
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> anyhow::Error {
    anyhow!("the BPF object has no {name}")
}

/// Where the unified control group hierarchy is mounted: /sys/fs/cgroup on most machines, a directory below it where
/// the old hierarchies are in use too.
pub(crate) fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for line in mounts.lines() {
        let mut words = line.split(' ');
        if let (Some(_), Some(directory), Some("cgroup2")) = (words.next(), words.next(), words.next()) {
            return Ok(directory.into());
        }
    }
    bail!("no cgroup2 filesystem is mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified` gives one")
}
