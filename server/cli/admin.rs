//! Requests of commands to a running process, at `--admin`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// The environment variable that holds the token of the API, here and there.
const TOKEN: &str = "MILLSTREAM_TOKEN";
/// People and supervisors wait little; a request takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The runs of ten years are 2 MB.
const ANSWER_BYTES: u64 = 64 << 20;

/// The status and the body of an answer.
pub fn ask(
    admin: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(u16, String)> {
    let at = reachable(admin);
    let answer = exchange(at, method, path, body)
        .with_context(|| format!("{at} does not answer; is it the --admin of a running process?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}

/// The JSON of an answer.
///
/// # Errors
/// What the API says it cannot do, in its words.
pub fn json(admin: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let (status, text) = ask(admin, method, path, body)?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if status == 200 {
        return Ok(answer);
    }
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => bail!("{} answered {status}: {}", reachable(admin), text.trim()),
    }
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

fn exchange(at: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&at, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    // Without chunks, as version 1.0 knows none.
    let mut request = format!("{method} {path} HTTP/1.0\r\nhost: {at}\r\n");
    if let Ok(token) = std::env::var(TOKEN) {
        request += &format!("authorization: Bearer {token}\r\n");
    }
    if let Some(body) = body {
        let body = body.to_string();
        let length = body.len();
        request += &format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    } else {
        request += "\r\n";
    }
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
