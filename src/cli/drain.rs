//! `iris drain`

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Drain;
use super::exit::{Exit, Failure};
use super::status::Node;
use super::{http, print};

/// Time for the node to begin.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Between looks. A node that was asked to end shows its end for ten times as long.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks between two lines of progress.
const LOOKS_PER_LINE: u32 = 5;
/// Looks in a row without an answer after which the node is gone.
const FAILED_LOOKS_MAX: u32 = 10;

/// Connections a second: `500/s` or `500`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PerSecond(NonZeroU32);

impl FromStr for PerSecond {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let rate = number.parse().ok().filter(|_| !number.starts_with('+'));
        rate.map(Self).ok_or_else(|| format!("{text:?} is no rate such as \"500/s\""))
    }
}

pub(super) fn run(args: Drain) -> anyhow::Result<Exit> {
    Ok(drain(&args)?)
}

fn drain(args: &Drain) -> Result<Exit, Failure> {
    let admin = http::address(&args.admin)?;
    let token = http::token(args.admin_token.as_deref())?;
    let token = token.as_deref();
    let node = Node::ask(&admin, token);
    let failed = |why: String| Failure::new(Exit::Negative, format!("{admin}: {why}"));
    if let Err(why) = &node.status {
        return Err(failed(why.clone()));
    }
    let reply = http::ask("POST", &node.changes_at(token), &path(args), token, ANSWER_MAX);
    let reply = reply.map_err(|why| failed(format!("{why}; whether it drains is not known")))?;
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    match (reply.status, body["error"].as_str()) {
        (202, _) => say(args.json, "draining", &body["drain"]),
        // Somebody else began: what is left is the same.
        (409, _) if body["drain"].is_object() => {
            say(args.json, "draining already", &body["drain"]);
        }
        (status, why) => {
            let why = why.unwrap_or("the server does not know this command");
            return Err(failed(format!("refused ({status}): {why}")));
        }
    }
    follow(args, &admin, token).map_err(failed)
}

fn path(args: &Drain) -> String {
    let rate = args.rate.map(|rate| format!("rate={}", rate.0));
    let time = args.timeout.map(|time| format!("timeout_ms={}", time.0.as_millis()));
    let query: Vec<String> = rate.into_iter().chain(time).collect();
    format!("/drain?{}", query.join("&"))
}

/// Looks until nobody is left, or says why that cannot be known.
fn follow(args: &Drain, admin: &str, token: Option<&str>) -> Result<Exit, String> {
    let mut failed = 0;
    for look in 1_u32.. {
        std::thread::sleep(LOOK_EVERY);
        let status = match Node::look(admin, token, "/status?awaits=empty").status {
            Ok(status) => status,
            Err(_) if failed < FAILED_LOOKS_MAX => {
                failed += 1;
                continue;
            }
            Err(why) => return Err(format!("gone before it was seen empty: {why}")),
        };
        failed = 0;
        let drain = &status["drain"];
        // A server that is older than this command does not say whether the log is written.
        let (left, is_empty) = (drain["left"].as_u64(), drain["empty"] != false);
        match (status["phase"].as_str(), left) {
            (Some("stopping"), Some(0)) if is_empty => {
                say(args.json, "empty", drain);
                return Ok(Exit::Ok);
            }
            (Some("stopping"), Some(left)) if left > 0 => {
                return Err(format!("its time was up with {left} connections left"));
            }
            (Some("draining" | "stopping"), Some(_)) => {
                if look % LOOKS_PER_LINE == 0 {
                    say(args.json, "draining", drain);
                }
            }
            _ => return Err("it does not drain: it has ended and was started again".to_owned()),
        }
    }
    unreachable!("looks do not run out")
}

fn say(is_json: bool, state: &str, drain: &Value) {
    if is_json {
        return print(&format!("{}\n", json!({ "state": state, "drain": drain })));
    }
    let number = |name: &str| drain[name].as_u64().unwrap_or(0);
    let (left, all) = (number("left"), number("connections"));
    print(&match state {
        "empty" => format!(
            "empty: all of {all} connections are closed, the log is written, the node ends\n"
        ),
        _ => {
            let seconds = number("closed_unix_ms").saturating_sub(number("started_unix_ms")) / 1000;
            let rate = number("rate_per_s");
            format!("{state}: {left} of {all} connections left, {rate}/s, {seconds} s in all\n")
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_taken_as_people_write_them() {
        for (text, rate) in [("500/s", 500), ("1", 1), ("4294967295/s", u32::MAX)] {
            assert_eq!(text.parse(), Ok(PerSecond(NonZeroU32::new(rate).unwrap())), "{text}");
        }
        for text in ["", "0", "0/s", "-1", "+1", "1.5/s", "5/m", "/s", "4294967296"] {
            assert!(text.parse::<PerSecond>().is_err(), "{text}");
        }
    }
}
