//! What a connection of `garbage` does, and how many do it.

use iris_proto::limits::FRAME_BODY_BYTES_MAX;
use iris_proto::wire::{MAGIC, kind};
use std::str::FromStr;

/// What a connection does to a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Sends random bytes.
    Garbage,
    /// Says nothing.
    Silent,
    /// Sends the first half of a HELLO, and no more.
    Half,
    /// Claims a frame longer than any, and sends some of it.
    Oversize,
    /// Sends a whole HELLO whose token is forged: the server has to verify it.
    Login,
    /// Leaves at once.
    Leave,
}

/// All of them, in the order of the report.
pub const KINDS: [Kind; 6] =
    [Kind::Garbage, Kind::Silent, Kind::Half, Kind::Oversize, Kind::Login, Kind::Leave];

/// A token of the right form (`{"sub":"flood","exp":9999999999}`, HS256) that no key has signed.
const FORGED: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJmbG9vZCIsImV4cCI6OTk5OTk5OTk5OX0.",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);
/// Random bytes of one connection, at most.
const GARBAGE_BYTES_MAX: u64 = 1024;

impl Kind {
    /// Its name in --mix and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Silent => "silent",
            Self::Half => "half",
            Self::Oversize => "oversize",
            Self::Login => "login",
            Self::Leave => "leave",
        }
    }

    /// Appends what it says once connected. `random` gives numbers.
    pub fn say(self, out: &mut Vec<u8>, mut random: impl FnMut() -> u64) {
        match self {
            Self::Silent | Self::Leave => {}
            Self::Garbage => {
                let len = 1 + random() % GARBAGE_BYTES_MAX;
                out.extend((0..len).map(|_| random() as u8));
            }
            Self::Half => {
                let start = out.len();
                put_hello(out);
                let half = (out.len() - start) / 2;
                out.truncate(start + half);
            }
            Self::Oversize => {
                let above = (1 << 24) - 1 - FRAME_BODY_BYTES_MAX as u64;
                let len = FRAME_BODY_BYTES_MAX as u64 + 1 + random() % above;
                out.push(kind::HELLO);
                out.extend_from_slice(&len.to_le_bytes()[..3]);
                out.extend_from_slice(&MAGIC);
            }
            Self::Login => put_hello(out),
        }
    }
}

fn put_hello(out: &mut Vec<u8>) {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&[1, 1, 0, 0]);
    body.extend_from_slice(&16_u32.to_le_bytes());
    // No user and no device.
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&(FORGED.len() as u16).to_le_bytes());
    body.extend_from_slice(FORGED.as_bytes());
    out.push(kind::HELLO);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes()[..3]);
    out.extend_from_slice(&body);
}

/// How many do what: parts of 1,000 at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mix(Vec<Kind>);

/// Parts of a mix, at most.
const PARTS_MAX: usize = 1000;

impl Mix {
    /// What connection number `n` does: in each run of as many as there are parts, the kinds have theirs.
    pub fn kind(&self, n: u32) -> Kind {
        // A stride without a common divisor spreads the kinds over the run.
        let (n, parts) = (n as usize, self.0.len());
        let stride = (parts * 5 / 8 + 1..).find(|stride| gcd(*stride, parts) == 1).unwrap_or(1);
        self.0[n % parts * stride % parts]
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for item in text.split(',') {
            let fault = || {
                let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
                format!("{item:?}: write NAME=PARTS of {}, such as silent=3", names.join(", "))
            };
            let (name, count) = item.split_once('=').ok_or_else(fault)?;
            let kind = KINDS.into_iter().find(|kind| kind.name() == name).ok_or_else(fault)?;
            let count = count.parse().ok().filter(|count| *count <= PARTS_MAX).ok_or_else(fault)?;
            parts.extend(std::iter::repeat_n(kind, count));
        }
        if parts.is_empty() || parts.len() > PARTS_MAX {
            return Err(format!("{} parts in all: use 1 to {PARTS_MAX}", parts.len()));
        }
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_proto::wire::{ClientFrame, Code, split_frame};

    fn said(kind: Kind) -> Vec<u8> {
        let (mut out, mut n) = (Vec::new(), 0);
        kind.say(&mut out, || {
            n += 0x9e37_79b9;
            n
        });
        out
    }

    #[test]
    fn each_kind_is_what_it_is_called() {
        assert!(said(Kind::Silent).is_empty() && said(Kind::Leave).is_empty());
        assert!((1..=1024).contains(&said(Kind::Garbage).len()));
        let hello = said(Kind::Login);
        let (kind, body, rest) = split_frame(&hello).unwrap().unwrap();
        assert!(rest.is_empty());
        match ClientFrame::decode(kind, body) {
            Ok(ClientFrame::Hello(hello)) => assert_eq!(hello.token.split('.').count(), 3),
            other => panic!("{other:?}"),
        }
        assert_eq!(split_frame(&said(Kind::Half)), Ok(None));
        assert!(hello.starts_with(&said(Kind::Half)));
        assert_eq!(split_frame(&said(Kind::Oversize)), Err(Code::Oversize));
    }

    #[test]
    fn a_mix_has_its_shares_in_every_run() {
        let mix: Mix = "garbage=4,silent=3,half=2,oversize=1".parse().unwrap();
        let count = |wanted| (0..1000).filter(|n| mix.kind(*n) == wanted).count();
        let counts = [Kind::Garbage, Kind::Silent, Kind::Half, Kind::Oversize, Kind::Login];
        assert_eq!(counts.map(count), [400, 300, 200, 100, 0]);
        for parts in 1..50 {
            let mix: Mix = format!("silent={parts},login=1").parse().unwrap();
            let logins = (0..parts + 1).filter(|n| mix.kind(*n) == Kind::Login).count();
            assert_eq!(logins, 1, "{parts}");
        }
        for wrong in ["", "silent", "silent=x", "loud=1", "silent=0", "silent=600,half=600"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
