//! `iris logout`

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::args::Logout;
use super::exit::{Exit, Failure};
use super::status::Node;
use super::{http, print};
use crate::auth::is_user_name;

/// Time for the threads to look for the user.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub(super) fn run(args: Logout) -> anyhow::Result<Exit> {
    Ok(logout(&args)?)
}

fn logout(args: &Logout) -> Result<Exit, Failure> {
    if !is_user_name(&args.user) {
        let text = "no user has this name: 1 to 128 bytes, no control characters";
        return Err(Failure::new(Exit::Usage, text));
    }
    let admin = http::address(&args.admin)?;
    let token = http::token(args.admin_token.as_deref())?;
    let token = token.as_deref();
    let node = Node::ask(&admin, token);
    let failed = |why: String| Failure::new(Exit::Negative, format!("{admin}: {why}"));
    if let Err(why) = &node.status {
        return Err(failed(why.clone()));
    }
    let path = format!("/logout?user={}", encoded(&args.user));
    let reply = http::ask("POST", &node.changes_at(token), &path, token, ANSWER_MAX);
    let reply = reply.map_err(|why| failed(format!("{why}; which sessions ended is not known")))?;
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let Some(ended) = body["ended"].as_u64().filter(|_| reply.status == 200) else {
        let why = body["error"].as_str().unwrap_or("the server does not know this command");
        return Err(failed(format!("refused ({}): {why}", reply.status)));
    };
    let sessions = if ended == 1 { "session" } else { "sessions" };
    let others = match body["other_nodes_told"] == true {
        true => "; all nodes that it is linked to were told, too",
        false => "",
    };
    print(&format!("{}: {ended} {sessions} of this node ended{others}\n", args.user));
    Ok(Exit::Ok)
}

/// Percent-encoded (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            other => write!(out, "%{other:02X}").expect("writing to a String cannot fail"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_so_that_nothing_in_them_is_taken_for_syntax() {
        assert_eq!(encoded("ann-1.x_~"), "ann-1.x_~");
        assert_eq!(encoded("a b&user=c\u{f6}#"), "a%20b%26user%3Dc%C3%B6%23");
    }
}
