//! `millstream health`: asks a running process whether its pipelines run, where there is nothing else that could, as in
//! an image without a shell.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

use crate::cli::{Exit, Global};

/// Supervisors ask often and wait little.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A pipeline's error is shown up to here.
const ANSWER_BYTES: u64 = 64 << 10;

pub fn run(global: &Global) -> anyhow::Result<Exit> {
    let at = reachable(global.admin);
    let answer =
        ask(at).with_context(|| format!("{at} does not answer; is it the --admin of a running process?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    println!("{}", body.trim());
    Ok(match head.split(' ').nth(1) {
        Some("200") => Exit::Ok,
        _ => Exit::Failed,
    })
}

/// Who listens everywhere is asked on this machine.
fn reachable(mut admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() {
        admin.set_ip(match admin.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    admin
}

fn ask(at: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&at, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    // Without chunks, as version 1.0 knows none.
    write!(socket, "GET /readyz HTTP/1.0\r\nhost: {at}\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
