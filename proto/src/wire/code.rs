//! Why a connection ended or a SEND was refused: stable numbers for machines, stable names for people and metrics.

/// A stable code. Below 400: the connection ends (ERROR). From 400: a SEND was refused (REJECTED); from 500 the same
/// id may be tried again later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u16)]
pub enum Code {
    /// The first bytes are no HELLO of this protocol.
    Garbage = 101,
    /// No version in common.
    Version = 102,
    /// A frame longer than the protocol allows.
    Oversize = 103,
    /// An unknown frame type that is not ignorable.
    UnknownType = 104,
    /// A field that does not fit its frame, is out of its range or is not UTF-8.
    Malformed = 105,
    /// A frame that this state of the session does not allow.
    OutOfOrder = 106,
    /// More unanswered SENDs than the window allows.
    SendWindow = 107,
    /// An ACK of a delivery that was never made.
    BadAck = 108,
    /// A SEND whose number does not follow the one before.
    BadSeq = 109,
    /// No token.
    TokenMissing = 201,
    /// The token cannot be parsed.
    TokenMalformed = 202,
    /// The token's signature does not verify.
    TokenSignature = 203,
    /// The token's time is over.
    TokenExpired = 204,
    /// The token's time has not begun.
    TokenNotYet = 205,
    /// No key here verifies this token.
    TokenKeyUnknown = 206,
    /// The token is for another user, or its subject is no user name.
    TokenSubject = 207,
    /// An operator ended the user's sessions.
    LoggedOut = 208,
    /// A newer login of the same user took over.
    Replaced = 301,
    /// No complete login in time.
    LoginTimeout = 302,
    /// Nothing was heard for too long.
    IdleTimeout = 303,
    /// The client does not read what it asked for.
    SlowReader = 304,
    /// The server is going away.
    Draining = 305,
    /// The server holds as many connections as it can.
    ConnectionLimit = 306,
    /// The inboxes cannot be reached now.
    Unavailable = 307,
    /// More connections or logins than this network, this user or all together may have now.
    LoginRate = 308,
    /// The client went on far beyond a rate at which it was refused.
    Flood = 309,
    /// The id's time is before the dedup window.
    IdTooOld = 401,
    /// The id's time is too far ahead of the server's clock.
    IdInFuture = 402,
    /// The id is below what the server remembers of this sender: it may or may not have been accepted before.
    IdStale = 403,
    /// The id is no UUIDv7.
    IdNotV7 = 404,
    /// The payload is larger than the limit.
    PayloadTooLarge = 405,
    /// An inbox of the recipients is full.
    InboxFull = 501,
    /// The disk is nearly full.
    LowDisk = 502,
    /// More work than the server can queue.
    Overloaded = 503,
    /// A shard of the recipients cannot be reached now.
    ShardUnavailable = 504,
    /// More SENDs, or bytes of them, than this connection or user may send now.
    SendRate = 505,
}

impl Code {
    /// All codes, in order.
    pub const ALL: [Code; 36] = [
        Code::Garbage,
        Code::Version,
        Code::Oversize,
        Code::UnknownType,
        Code::Malformed,
        Code::OutOfOrder,
        Code::SendWindow,
        Code::BadAck,
        Code::BadSeq,
        Code::TokenMissing,
        Code::TokenMalformed,
        Code::TokenSignature,
        Code::TokenExpired,
        Code::TokenNotYet,
        Code::TokenKeyUnknown,
        Code::TokenSubject,
        Code::LoggedOut,
        Code::Replaced,
        Code::LoginTimeout,
        Code::IdleTimeout,
        Code::SlowReader,
        Code::Draining,
        Code::ConnectionLimit,
        Code::Unavailable,
        Code::LoginRate,
        Code::Flood,
        Code::IdTooOld,
        Code::IdInFuture,
        Code::IdStale,
        Code::IdNotV7,
        Code::PayloadTooLarge,
        Code::InboxFull,
        Code::LowDisk,
        Code::Overloaded,
        Code::ShardUnavailable,
        Code::SendRate,
    ];

    /// The code of a number, if there is one.
    pub fn from_u16(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u16 == number)
    }

    /// Whether the same SEND may succeed later.
    pub fn is_retryable(self) -> bool {
        self as u16 >= 500
    }

    /// The name in documents and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Code::Garbage => "garbage",
            Code::Version => "version",
            Code::Oversize => "oversize",
            Code::UnknownType => "unknown_type",
            Code::Malformed => "malformed",
            Code::OutOfOrder => "out_of_order",
            Code::SendWindow => "send_window",
            Code::BadAck => "bad_ack",
            Code::BadSeq => "bad_seq",
            Code::TokenMissing => "token_missing",
            Code::TokenMalformed => "token_malformed",
            Code::TokenSignature => "token_signature",
            Code::TokenExpired => "token_expired",
            Code::TokenNotYet => "token_not_yet",
            Code::TokenKeyUnknown => "token_key_unknown",
            Code::TokenSubject => "token_subject",
            Code::LoggedOut => "logged_out",
            Code::Replaced => "replaced",
            Code::LoginTimeout => "login_timeout",
            Code::IdleTimeout => "idle_timeout",
            Code::SlowReader => "slow_reader",
            Code::Draining => "draining",
            Code::ConnectionLimit => "connection_limit",
            Code::Unavailable => "unavailable",
            Code::LoginRate => "login_rate",
            Code::Flood => "flood",
            Code::IdTooOld => "id_too_old",
            Code::IdInFuture => "id_in_future",
            Code::IdStale => "id_stale",
            Code::IdNotV7 => "id_not_v7",
            Code::PayloadTooLarge => "payload_too_large",
            Code::InboxFull => "inbox_full",
            Code::LowDisk => "low_disk",
            Code::Overloaded => "overloaded",
            Code::ShardUnavailable => "shard_unavailable",
            Code::SendRate => "send_rate",
        }
    }

    /// One sentence for the person who reads an ERROR: what happened and what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Code::Garbage => {
                "not an Iris client: the first frame must be HELLO with the magic IRIS"
            }
            Code::Version => "no protocol version in common: this server speaks version 1",
            Code::Oversize => "frame longer than 131072 bytes: split it",
            Code::UnknownType => "unknown frame type: check docs/PROTOCOL.md for this version",
            Code::Malformed => {
                "malformed frame: a field does not fit, is out of range or is not UTF-8"
            }
            Code::OutOfOrder => {
                "this frame is not allowed now: send HELLO first, once, and wait for WELCOME"
            }
            Code::SendWindow => "too many unanswered SENDs: keep within send_window of WELCOME",
            Code::BadAck => {
                "ACK of a delivery that was never made: acknowledge numbers you received"
            }
            Code::BadSeq => {
                "SEND numbers do not follow: count up by one from the first of the connection"
            }
            Code::TokenMissing => {
                "no token: get one from your identity provider, or iris token --user NAME"
            }
            Code::TokenMalformed => {
                "token cannot be parsed: expected a signed JWT with sub and exp"
            }
            Code::TokenSignature => "token signature does not verify: signed with another key?",
            Code::TokenExpired => "token expired: get a fresh one and log in again",
            Code::TokenNotYet => "token not valid yet: check nbf and the clocks",
            Code::TokenKeyUnknown => {
                "no key for this token: check kid and alg against the server's auth.keys"
            }
            Code::TokenSubject => "token is for another user: sub must equal the user of HELLO",
            Code::LoggedOut => "an operator ended your sessions: log in only when asked to",
            Code::Replaced => "a newer login of this user took over: do not reconnect at once",
            Code::LoginTimeout => "no complete HELLO in time: send it right after connecting",
            Code::IdleTimeout => {
                "nothing heard for too long: answer PING or send PING within idle_timeout"
            }
            Code::SlowReader => {
                "you do not read what you asked for: read, or ask for a smaller window"
            }
            Code::Draining => "server is going away: reconnect after the given time",
            Code::ConnectionLimit => {
                "server holds as many connections as it can: try another or later"
            }
            Code::Unavailable => "inboxes cannot be reached now: reconnect after the given time",
            Code::LoginRate => {
                "too many connections or logins of this network, user or server: reconnect after the given time"
            }
            Code::Flood => {
                "you went on far beyond the rate at which SENDs were refused: wait as long as REJECTED says"
            }
            Code::IdTooOld => "message id is older than the dedup window: make a fresh id",
            Code::IdInFuture => {
                "message id is in the future: set its time by server_time of WELCOME"
            }
            Code::IdStale => {
                "message id is below what is remembered: it may have been accepted before"
            }
            Code::IdNotV7 => "message id is no UUIDv7 (RFC 9562)",
            Code::PayloadTooLarge => "payload larger than payload_max of WELCOME",
            Code::InboxFull => "an inbox of the recipients is full: retry later",
            Code::LowDisk => "server is low on disk: retry later",
            Code::Overloaded => "server is overloaded: retry after the given time",
            Code::ShardUnavailable => "the recipient's shard cannot be reached now: retry later",
            Code::SendRate => "more SENDs or bytes than you may send: retry after the given time",
        }
    }
}
