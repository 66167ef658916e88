//! `config key=value`: parameters of the connection under test.

use mimbox_stack::SeqNum;
use mimbox_stack::tcp::{CcKind, TsOffer};

use super::{count, time};
use crate::script::lex::{Line, ParseError};
use crate::script::syntax::{Family, Mode, Settings};

/// Takes one `key=value`.
pub(super) fn setting(line: &mut Line<'_>, settings: &mut Settings) -> Result<(), ParseError> {
    let word = line.word("`key=value`")?;
    let Some((key, value)) = word.split_once('=') else {
        return Err(line.error(format!("`{word}`: `key=value` should stand here")));
    };
    let switch = || match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(line.error(format!("`{value}`: `on` or `off` should stand here"))),
    };
    let (tcp, offer) = (&mut settings.tcp, &mut settings.offer);
    match key {
        "min_rto" => tcp.min_rto = time(line, value)?,
        "max_rto" => tcp.max_rto = time(line, value)?,
        "user_timeout" => tcp.user_timeout = time(line, value)?,
        "keepalive" => tcp.keepalive = Some(time(line, value)?),
        "time_wait" => tcp.time_wait = time(line, value)?,
        "initial_cwnd" => tcp.initial_cwnd = count(line, value)?,
        "mtu" => tcp.mtu = count(line, value)?,
        "max_ooo_frames" => tcp.max_ooo_frames = count(line, value)?,
        "syn_retries" => tcp.syn_retries = count(line, value)?,
        "cc" => {
            tcp.cc = match value {
                "cubic" => CcKind::Cubic,
                "newreno" => CcKind::NewReno,
                other => return Err(line.error(format!("`{other}`: `cubic` or `newreno` should stand here"))),
            }
        }
        "mss" => offer.mss = count(line, value)?,
        "wscale" if value == "off" => offer.window_scale = None,
        "wscale" => offer.window_scale = Some(count(line, value)?),
        "sack" => offer.sack = switch()?,
        "ts" => offer.timestamps = switch()?.then(TsOffer::default),
        "ts_offset" => offer.timestamps = Some(TsOffer { offset: count(line, value)? }),
        "ecn" => offer.ecn = switch()?,
        "rcv_wnd" => offer.rcv_wnd = count(line, value)?,
        "buffer" => settings.receive_buffer = count(line, value)?,
        "frames" => settings.frames = count(line, value)?,
        "peer_isn" => settings.peer_isn = SeqNum(count(line, value)?),
        "local_isn" => settings.local_isn = SeqNum(count(line, value)?),
        "mode" => {
            settings.mode = match value {
                "explicit" => Mode::Explicit,
                "transparent" => Mode::Transparent,
                other => return Err(line.error(format!("`{other}`: `explicit` or `transparent` should stand here"))),
            }
        }
        "family" => {
            settings.family = match value {
                "v4" => Family::V4,
                "v6" => Family::V6,
                other => return Err(line.error(format!("`{other}`: `v4` or `v6` should stand here"))),
            }
        }
        other => return Err(line.error(format!("there is no setting `{other}`"))),
    }
    settings.written.push((key.to_owned(), value.to_owned()));
    Ok(())
}
