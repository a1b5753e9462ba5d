//! One GET over HTTP/1.1: a connection for each, a deadline for all of it, a bound on the answer.

use anyhow::{Context, bail, ensure};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// For one answer, from connecting to its last byte.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer, at most.
const ANSWER_MAX: usize = 16 << 20;

/// Where metrics are: `http://HOST:PORT/PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    host: String,
    path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            format!("{text:?}: write http://HOST:PORT/metrics; TLS is not spoken here")
        })?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        if host.is_empty() || !is_plain(host) || !is_plain(path) || host.contains('@') {
            return Err(format!("{text:?}: write http://HOST:PORT/metrics"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Self { host, path: format!("/{path}") })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

impl Endpoint {
    /// Gets the page.
    pub(super) fn get(&self) -> anyhow::Result<String> {
        let until = Instant::now() + PATIENCE;
        let mut addrs = self.host.to_socket_addrs().context("no such host")?;
        let addr = addrs.next().context("no such host")?;
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n",
            self.path, self.host
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 16 << 10];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no whole answer within {PATIENCE:?}");
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(len) => answer.extend_from_slice(&part[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(answer.len() <= ANSWER_MAX, "an answer of over {ANSWER_MAX} bytes");
        }
        body(&answer)
    }
}

/// The body of a whole answer.
fn body(answer: &[u8]) -> anyhow::Result<String> {
    let head_end =
        answer.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP answer")?;
    let head = String::from_utf8_lossy(&answer[..head_end]).into_owned();
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1."), "no HTTP answer");
    ensure!(status.split(' ').nth(1) == Some("200"), "the answer is {status:?}");
    let body = &answer[head_end + 4..];
    let field = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let is_chunked =
        field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = field("content-length").and_then(|value| value.parse::<usize>().ok());
    let bytes = match length {
        _ if is_chunked => unchunked(body)?,
        Some(length) if length > body.len() => bail!("the answer ends early"),
        Some(length) => body[..length].to_vec(),
        None => body.to_vec(),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unchunked(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").context("a chunk ends early")?;
        let size = std::str::from_utf8(&rest[..end])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk has no size")?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(whole);
        }
        let chunk = rest.get(..size).context("a chunk ends early")?;
        whole.extend_from_slice(chunk);
        rest = rest.get(size + 2..).context("a chunk ends early")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_scheme_and_may_leave_out_the_path() {
        let endpoint = |text: &str| text.parse::<Endpoint>();
        assert_eq!(endpoint("http://a:1/b").unwrap().to_string(), "http://a:1/b");
        assert_eq!(endpoint("http://[::1]:9").unwrap().to_string(), "http://[::1]:9/metrics");
        assert_eq!(endpoint("http://a").unwrap().to_string(), "http://a:80/metrics");
        for bad in
            ["", "a:1", "https://a:1/", "http://", "http://a b/", "http://a:1/\r\nX", "http://u@a/"]
        {
            assert!(endpoint(bad).unwrap_err().contains("http://HOST:PORT/metrics"), "{bad}");
        }
    }

    #[test]
    fn bodies_are_whole_with_a_length_in_chunks_or_to_the_end() {
        let get = |text: &str| body(text.as_bytes());
        assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc").unwrap(), "ab");
        assert_eq!(get("HTTP/1.0 200 OK\r\n\r\nabc").unwrap(), "abc");
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n";
        assert_eq!(get(&format!("{chunked}2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n")).unwrap(), "abc");
        let bad = [
            "",
            "x\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nabc",
            &format!("{chunked}5\r\nab"),
            &format!("{chunked}zz\r\n"),
            &format!("{chunked}2\r\nab"),
            &format!("{chunked}ffffffffffffffff\r\nab"),
        ];
        for text in bad {
            assert!(get(text).is_err(), "{text:?}");
        }
    }
}
