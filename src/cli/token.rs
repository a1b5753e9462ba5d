//! `iris token`

use std::time::{SystemTime, UNIX_EPOCH};

use super::args::Token;
use super::exit::{Exit, Failure};
use super::print;
use crate::auth;

pub(super) fn run(args: Token) -> anyhow::Result<Exit> {
    if !auth::is_user_name(&args.user) {
        let cause = "--user must have 1 to 128 bytes and no control characters";
        return Err(Failure::new(Exit::Usage, format!("{cause}; choose another name")).into());
    }
    if !args.key.exists() {
        let cause = format!("there is no key at {}", args.key.display());
        let fix = "start `iris serve --dev` once, which makes it, or name a secret with --key FILE";
        return Err(Failure::new(Exit::Usage, format!("{cause}; {fix}")).into());
    }
    let secret = auth::load_secret(&args.key)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let now = unix_s();
    let ttl_s = args.ttl.0.as_secs();
    let token = auth::sign_hs256(&secret, args.kid.as_deref(), &args.user, now, ttl_s);
    print(&format!("{token}\n"));
    Ok(Exit::Ok)
}

/// Seconds of Unix time.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
