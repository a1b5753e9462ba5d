//! `/`: the dashboard, a page in one file that loads nothing else.
//!
//! It holds nothing of the node, so whoever reaches the port may have it; what it shows comes from `/events`, behind
//! the gate like every other page.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use iris_wal::io::random_bytes;

use super::gate::refuse;

const PAGE: &str = include_str!("dashboard.html");
/// Stands in the page where the nonce of each answer belongs.
const NONCE: &str = "{nonce}";

/// Nothing may be loaded, run or styled but what carries the nonce, which nobody knows before; the page talks to where
/// it came from alone, sends no form and is in nobody's frame (Content Security Policy Level 3).
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

pub(super) async fn dashboard() -> Response {
    let Ok(random) = random_bytes() else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the system has no random bytes");
    };
    let nonce = format!("{:032x}", u128::from_le_bytes(random));
    let headers: [(HeaderName, String); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy(&nonce)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, PAGE.replace(NONCE, &nonce)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_every_part_of_it_carries_the_nonce() {
        for foreign in
            ["http:", "https:", "//cdn", "@import", "url(", "<iframe", "innerHTML", "eval("]
        {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
        for (part, times) in [("<script", 1), ("<style", 1), ("<link", 1)] {
            assert_eq!(PAGE.matches(part).count(), times, "{part}");
        }
        assert!(
            PAGE.contains("<script nonce=\"{nonce}\">")
                && PAGE.contains("<style nonce=\"{nonce}\">")
        );
        assert!(
            !PAGE.contains(" style=") && !PAGE.contains(" onclick="),
            "the policy forbids them"
        );
        assert!(policy("abc").contains("script-src 'nonce-abc';"));
    }
}
