//! Asks the admin server of a node: one request, one connection, bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::exit::{Exit, Failure};

/// Port of `listen.admin` by default.
const PORT: u16 = 7480;
/// Time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer, at most.
const BYTES_MAX: usize = 4 << 20;

/// What an admin server answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Before the path of an admin server's unix socket.
pub(super) const SOCKET: &str = "unix:";

/// An address as people write it, as `HOST:PORT`: `http://` before it is dropped, a port that is missing is 7480.
/// `unix:PATH` stays as it is.
pub(super) fn address(text: &str) -> Result<String, Failure> {
    if text.strip_prefix(SOCKET).is_some_and(|path| !path.is_empty()) {
        return Ok(text.to_owned());
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if let Ok(ip) = bare.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT).to_string());
    }
    let (host, port) = bare.rsplit_once(':').unwrap_or((bare, "7480"));
    let is_host = !host.is_empty() && !host.contains(['/', ' ']) && !host.starts_with('-');
    match port.parse::<u16>() {
        Ok(1..) if is_host => Ok(format!("{host}:{port}")),
        _ => {
            let cause = format!("{text:?} is no address of an admin server");
            let fix = "write HOST:PORT, such as 127.0.0.1:7480, or unix:PATH";
            Err(Failure::new(Exit::Usage, format!("{cause}; {fix}")))
        }
    }
}

/// The token of an admin server, out of its file.
pub(super) fn token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let secret = crate::auth::load_secret(file).map_err(|error| usage(error.to_string()))?;
    let is_shown = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
    let text = String::from_utf8(secret).ok().filter(is_shown);
    let what = || usage(format!("{}: a token is of printable characters", file.display()));
    text.ok_or_else(what).map(Some)
}

/// Sends a request without a body and waits for the answer, `time` at most. An error says why there is none.
pub(super) fn ask(
    method: &str,
    address: &str,
    path: &str,
    token: Option<&str>,
    time: Duration,
) -> Result<Reply, String> {
    let deadline = Instant::now() + time;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s: the node hangs or is overloaded", time.as_secs())
        }
        io::ErrorKind::NotFound if address.starts_with(SOCKET) => {
            "there is no such socket: the node does not run, or listens elsewhere".to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "connection refused: no server runs there, or it listens elsewhere".to_owned()
        }
        _ => error.to_string(),
    };
    let mut stream = connect(address).map_err(failed)?;
    // By whatever name the node was found: without a token it answers to no other one.
    let by_name = token.is_some() && !address.starts_with(SOCKET);
    let host = if by_name { address } else { "localhost" };
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    let request = format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.set_time(Some(CONNECT_MAX)).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        stream.set_time(Some(left)).map_err(failed)?;
        match stream.read(&mut chunk) {
            Ok(0) => return parse(&answer),
            Ok(bytes) => answer.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
        if answer.len() > BYTES_MAX {
            return Err(NOT_IRIS.to_owned());
        }
    }
}

const NOT_IRIS: &str = "what answers there is no admin server of Iris";

/// A connection to an admin server.
trait Stream: Read + Write {
    /// How long a read or a write may take.
    fn set_time(&self, time: Option<Duration>) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_time(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_write_timeout(time).and_then(|()| self.set_read_timeout(time))
    }
}

impl Stream for UnixStream {
    fn set_time(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_write_timeout(time).and_then(|()| self.set_read_timeout(time))
    }
}

fn connect(address: &str) -> io::Result<Box<dyn Stream>> {
    if let Some(path) = address.strip_prefix(SOCKET) {
        let (_folder, through) = crate::admin::short(Path::new(path))?;
        return Ok(Box::new(UnixStream::connect(through)?));
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for target in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&target, CONNECT_MAX) {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> Result<Reply, String> {
    let not_iris = || NOT_IRIS.to_owned();
    let text = std::str::from_utf8(answer).map_err(|_| not_iris())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(not_iris)?;
    let mut lines = head.split("\r\n");
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or_else(not_iris)?;
    let status = first.get(2..5).and_then(|status| status.parse().ok()).ok_or_else(not_iris)?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if length != Some(body.len()) {
        return Err("the answer was cut off: the node may be stopping".to_owned());
    }
    Ok(Reply { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (text, wanted) in [
            ("127.0.0.1:7480", "127.0.0.1:7480"),
            ("http://127.0.0.1:7481/", "127.0.0.1:7481"),
            ("10.0.0.1", "10.0.0.1:7480"),
            ("core-1.example", "core-1.example:7480"),
            ("::1", "[::1]:7480"),
            ("[::1]:9", "[::1]:9"),
            ("unix:/run/iris/admin.sock", "unix:/run/iris/admin.sock"),
        ] {
            assert_eq!(address(text).unwrap(), wanted);
        }
        for wrong in
            ["", "unix:", ":7480", "a:b", "127.0.0.1:0", "a:70000", "http://a:1/status", "a b:1"]
        {
            let failure = address(wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.to_string().contains("write HOST:PORT"), "{failure}");
        }
    }

    /// Asks a server that answers with these bytes and closes.
    fn answer(bytes: Vec<u8>) -> Result<Reply, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = listener.accept().unwrap().0;
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                // It may hang up before all was written.
                let _ = stream.write_all(&bytes);
            });
            ask("GET", &address, "/status", None, Duration::from_secs(120))
        })
    }

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let whole = b"HTTP/1.1 503 Service Unavailable\r\ncontent-Length: 3\r\nx: y\r\n\r\n{}\n";
        let wanted = Reply { status: 503, body: "{}\n".to_owned() };
        assert_eq!(answer(whole.to_vec()), Ok(wanted));
        for cut in [whole.len() - 1, whole.len() - 3] {
            assert!(answer(whole[..cut].to_vec()).unwrap_err().contains("cut off"));
        }
        for cut in 0..40 {
            assert!(answer(whole[..cut].to_vec()).unwrap_err().contains("no admin server"));
        }
        let other: [&[u8]; 4] =
            [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", &[0xff; 64], b"HTTP/1."];
        for bytes in other {
            assert!(answer(bytes.to_vec()).unwrap_err().contains("no admin server"));
        }
        let endless = answer(vec![b'x'; BYTES_MAX + (1 << 20)]).unwrap_err();
        assert!(endless.contains("no admin server"), "{endless}");
    }

    #[test]
    fn nobody_there_and_somebody_who_says_nothing_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let error = ask("GET", &address, "/", None, Duration::from_millis(10)).unwrap_err();
        assert!(error.contains("no answer within"), "{error}");
        drop(listener);
        let error = ask("GET", &address, "/", None, Duration::from_secs(120)).unwrap_err();
        assert!(error.contains("connection refused"), "{error}");
    }
}
