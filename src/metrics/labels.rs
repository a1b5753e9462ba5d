//! The values of labels: why a connection ended, why a send was refused, which frame it was.

use iris_proto::admission::Bound;
use iris_proto::peer::EndCode;
use iris_proto::wire::{Code, kind};
use iris_tls::{Cause, Fault, Kind};

use super::cell::{Label, label};
use crate::auth::AuthError;

label! {
    /// Why a connection ended. Those that the client is told by a [`Code`] have its name; the causes of a refused
    /// token are told apart further.
    pub enum CloseReason {
        /// The peer closed its side.
        PeerClosed = "peer_closed",
        /// The peer reset the connection.
        PeerReset = "peer_reset",
        /// The kernel gave up on the peer (ETIMEDOUT, EHOSTUNREACH).
        PeerTimeout = "peer_timeout",
        /// Another error of the socket.
        IoError = "io_error",
        /// [`Code::Garbage`].
        Garbage = "garbage",
        /// [`Code::Version`].
        Version = "version",
        /// [`Code::Oversize`].
        Oversize = "oversize",
        /// [`Code::UnknownType`].
        UnknownType = "unknown_type",
        /// [`Code::Malformed`].
        Malformed = "malformed",
        /// [`Code::OutOfOrder`].
        OutOfOrder = "out_of_order",
        /// [`Code::SendWindow`].
        SendWindow = "send_window",
        /// [`Code::BadAck`].
        BadAck = "bad_ack",
        /// [`Code::BadSeq`].
        BadSeq = "bad_seq",
        /// [`Code::TokenMissing`].
        TokenMissing = "token_missing",
        /// [`AuthError::Malformed`].
        TokenMalformed = "token_malformed",
        /// [`AuthError::TooLong`].
        TokenTooLong = "token_too_long",
        /// [`AuthError::UnknownKey`].
        TokenKeyUnknown = "token_key_unknown",
        /// [`AuthError::WrongAlgorithm`].
        TokenAlgorithm = "token_algorithm",
        /// [`AuthError::BadSignature`].
        TokenSignature = "token_signature",
        /// [`AuthError::BadClaims`].
        TokenClaims = "token_claims",
        /// [`AuthError::Expired`].
        TokenExpired = "token_expired",
        /// [`AuthError::NotYetValid`].
        TokenNotYet = "token_not_yet",
        /// [`AuthError::BadSubject`], or a login as another than `sub`.
        TokenSubject = "token_subject",
        /// [`AuthError::WrongIssuer`].
        TokenIssuer = "token_issuer",
        /// [`AuthError::WrongAudience`].
        TokenAudience = "token_audience",
        /// [`Code::LoggedOut`].
        LoggedOut = "logged_out",
        /// The token of a live connection ran out.
        SessionExpired = "session_expired",
        /// [`Code::Replaced`].
        Replaced = "replaced",
        /// [`Code::LoginTimeout`].
        LoginTimeout = "login_timeout",
        /// [`Code::IdleTimeout`].
        IdleTimeout = "idle_timeout",
        /// [`Code::SlowReader`].
        SlowReader = "slow_reader",
        /// [`Code::Draining`].
        Draining = "draining",
        /// [`Code::ConnectionLimit`].
        ConnectionLimit = "connection_limit",
        /// [`Code::Unavailable`].
        Unavailable = "unavailable",
        /// [`Code::LoginRate`].
        LoginRate = "login_rate",
        /// [`Code::Flood`].
        Flood = "flood",
        /// No room was left for unfinished frames; the client is told [`Code::Unavailable`].
        Overloaded = "overloaded",
        /// TLS failed, in the handshake or after it.
        Tls = "tls",
        /// Too many handshakes of TLS were waiting.
        HandshakesFull = "handshakes_full",
        /// A code that does not end connections.
        Other = "other",
    }
}

impl From<AuthError> for CloseReason {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Malformed => Self::TokenMalformed,
            AuthError::TooLong => Self::TokenTooLong,
            AuthError::UnknownKey => Self::TokenKeyUnknown,
            AuthError::WrongAlgorithm => Self::TokenAlgorithm,
            AuthError::BadSignature => Self::TokenSignature,
            AuthError::BadClaims => Self::TokenClaims,
            AuthError::Expired => Self::TokenExpired,
            AuthError::NotYetValid => Self::TokenNotYet,
            AuthError::BadSubject => Self::TokenSubject,
            AuthError::WrongIssuer => Self::TokenIssuer,
            AuthError::WrongAudience => Self::TokenAudience,
        }
    }
}

impl From<Code> for CloseReason {
    fn from(code: Code) -> Self {
        match code {
            Code::Garbage => Self::Garbage,
            Code::Version => Self::Version,
            Code::Oversize => Self::Oversize,
            Code::UnknownType => Self::UnknownType,
            Code::Malformed => Self::Malformed,
            Code::OutOfOrder => Self::OutOfOrder,
            Code::SendWindow => Self::SendWindow,
            Code::BadAck => Self::BadAck,
            Code::BadSeq => Self::BadSeq,
            Code::TokenMissing => Self::TokenMissing,
            Code::TokenMalformed => Self::TokenMalformed,
            Code::TokenSignature => Self::TokenSignature,
            Code::TokenExpired => Self::TokenExpired,
            Code::TokenNotYet => Self::TokenNotYet,
            Code::TokenKeyUnknown => Self::TokenKeyUnknown,
            Code::TokenSubject => Self::TokenSubject,
            Code::LoggedOut => Self::LoggedOut,
            Code::Replaced => Self::Replaced,
            Code::LoginTimeout => Self::LoginTimeout,
            Code::IdleTimeout => Self::IdleTimeout,
            Code::SlowReader => Self::SlowReader,
            Code::Draining => Self::Draining,
            Code::ConnectionLimit => Self::ConnectionLimit,
            Code::Unavailable => Self::Unavailable,
            Code::LoginRate => Self::LoginRate,
            Code::Flood => Self::Flood,
            _ => Self::Other,
        }
    }
}

label! {
    /// How the two sides of a TLS connection came to trust each other.
    pub enum TlsHandshake {
        /// By certificates.
        Full = "full",
        /// By a ticket of an earlier connection.
        Resumed = "resumed",
    }
}

impl From<Kind> for TlsHandshake {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Full => Self::Full,
            Kind::Resumed => Self::Resumed,
        }
    }
}

label! {
    /// Why a handshake of TLS came to nothing.
    pub enum TlsFailure {
        /// The client does not speak TLS, but Iris's protocol in the clear.
        Plain = "plain",
        /// The bytes are no TLS, or break its rules.
        Garbage = "garbage",
        /// The client speaks no version that is spoken here.
        Version = "version",
        /// No cipher suite, group or signature scheme in common.
        Incompatible = "incompatible",
        /// The client wants another protocol (ALPN).
        Alpn = "alpn",
        /// The client must show a certificate and did not.
        CertificateMissing = "certificate_missing",
        /// The client's certificate is not taken.
        Certificate = "certificate",
        /// The client gave up and said so; mostly it does not trust the server's certificate.
        Alert = "alert",
        /// Not done by the login timeout.
        Timeout = "timeout",
        /// The client closed or was lost before it was done.
        Closed = "closed",
        /// Too many were waiting.
        Full = "full",
        /// Another fault, of the node too: it drained, or had no room.
        Other = "other",
    }
}

impl From<&Fault> for TlsFailure {
    fn from(fault: &Fault) -> Self {
        match fault.cause() {
            Cause::Garbage => Self::Garbage,
            Cause::Incompatible if fault.is_version() => Self::Version,
            Cause::Incompatible => Self::Incompatible,
            Cause::Alpn => Self::Alpn,
            Cause::CertificateMissing => Self::CertificateMissing,
            Cause::Certificate => Self::Certificate,
            Cause::Alert => Self::Alert,
            Cause::Other => Self::Other,
        }
    }
}

impl TlsFailure {
    /// What the end of a connection before its handshake was done counts as.
    pub fn of_end(reason: CloseReason) -> Self {
        match reason {
            CloseReason::PeerClosed | CloseReason::PeerReset | CloseReason::PeerTimeout => {
                Self::Closed
            }
            CloseReason::LoginTimeout => Self::Timeout,
            CloseReason::HandshakesFull => Self::Full,
            _ => Self::Other,
        }
    }
}

label! {
    /// What came of loading TLS files again.
    pub enum ReloadResult {
        /// They are in use.
        Ok = "ok",
        /// Something was wrong with them; the old ones are in use.
        Failed = "failed",
    }
}

label! {
    /// Why a SEND was refused: the [`Code`]s from 400, by their names.
    pub enum RejectReason {
        /// [`Code::IdTooOld`].
        IdTooOld = "id_too_old",
        /// [`Code::IdInFuture`].
        IdInFuture = "id_in_future",
        /// [`Code::IdStale`].
        IdStale = "id_stale",
        /// [`Code::IdNotV7`].
        IdNotV7 = "id_not_v7",
        /// [`Code::PayloadTooLarge`].
        PayloadTooLarge = "payload_too_large",
        /// [`Code::InboxFull`].
        InboxFull = "inbox_full",
        /// [`Code::LowDisk`].
        LowDisk = "low_disk",
        /// [`Code::Overloaded`].
        Overloaded = "overloaded",
        /// [`Code::ShardUnavailable`].
        ShardUnavailable = "shard_unavailable",
        /// [`Code::SendRate`].
        SendRate = "send_rate",
        /// All inboxes of the node are full; the client is told [`Code::Overloaded`].
        NodeFull = "node_full",
        /// A code that does not refuse SENDs.
        Other = "other",
    }
}

impl From<Code> for RejectReason {
    fn from(code: Code) -> Self {
        match code {
            Code::IdTooOld => Self::IdTooOld,
            Code::IdInFuture => Self::IdInFuture,
            Code::IdStale => Self::IdStale,
            Code::IdNotV7 => Self::IdNotV7,
            Code::PayloadTooLarge => Self::PayloadTooLarge,
            Code::InboxFull => Self::InboxFull,
            Code::LowDisk => Self::LowDisk,
            Code::Overloaded => Self::Overloaded,
            Code::ShardUnavailable => Self::ShardUnavailable,
            Code::SendRate => Self::SendRate,
            _ => Self::Other,
        }
    }
}

label! {
    /// Which limit refused a connection, a login or a SEND: the keys of the section `limits` of the configuration.
    pub enum LimitHit {
        /// [`Bound::ConnectionMessages`].
        ConnectionMessages = "connection_messages",
        /// [`Bound::ConnectionBytes`].
        ConnectionBytes = "connection_bytes",
        /// [`Bound::UserMessages`].
        UserMessages = "user_messages",
        /// [`Bound::UserBytes`].
        UserBytes = "user_bytes",
        /// [`Bound::FloodFactor`].
        FloodFactor = "flood_factor",
        /// [`Bound::UserLogins`].
        UserLogins = "user_logins",
        /// [`Bound::Accepts`].
        Accepts = "accepts",
        /// [`Bound::PrefixAccepts`].
        PrefixAccepts = "prefix_accepts",
        /// [`Bound::PrefixLogins`].
        PrefixLogins = "prefix_logins",
        /// [`Bound::PrefixConnectionsMax`].
        PrefixConnectionsMax = "prefix_connections_max",
        /// [`Bound::PendingLoginsMax`].
        PendingLoginsMax = "pending_logins_max",
    }
}

impl From<Bound> for LimitHit {
    fn from(bound: Bound) -> Self {
        match bound {
            Bound::ConnectionMessages => Self::ConnectionMessages,
            Bound::ConnectionBytes => Self::ConnectionBytes,
            Bound::UserMessages => Self::UserMessages,
            Bound::UserBytes => Self::UserBytes,
            Bound::FloodFactor => Self::FloodFactor,
            Bound::UserLogins => Self::UserLogins,
            Bound::Accepts => Self::Accepts,
            Bound::PrefixAccepts => Self::PrefixAccepts,
            Bound::PrefixLogins => Self::PrefixLogins,
            Bound::PrefixConnectionsMax => Self::PrefixConnectionsMax,
            Bound::PendingLoginsMax => Self::PendingLoginsMax,
        }
    }
}

label! {
    /// Why messages left inboxes other than by an ACK.
    pub enum DropReason {
        /// They were older than `core.message_age_max`.
        Expired = "expired",
        /// The inbox was full, and its policy is to have the oldest give way.
        InboxFull = "inbox_full",
    }
}

label! {
    /// The type of a frame, as in [`iris_proto::wire::kind`].
    pub enum FrameType {
        /// [`kind::HELLO`].
        Hello = "hello",
        /// [`kind::SEND`].
        Send = "send",
        /// [`kind::ACK`].
        Ack = "ack",
        /// [`kind::WINDOW`].
        Window = "window",
        /// [`kind::PRESENCE_QUERY`].
        PresenceQuery = "presence_query",
        /// [`kind::UNWATCH`].
        Unwatch = "unwatch",
        /// [`kind::PING`].
        Ping = "ping",
        /// [`kind::PONG`].
        Pong = "pong",
        /// [`kind::WELCOME`].
        Welcome = "welcome",
        /// [`kind::ACCEPTED`].
        Accepted = "accepted",
        /// [`kind::REJECTED`].
        Rejected = "rejected",
        /// [`kind::MESSAGE`].
        Message = "message",
        /// [`kind::PRESENCE`].
        Presence = "presence",
        /// [`kind::DRAIN`].
        Drain = "drain",
        /// [`kind::ERROR`].
        Error = "error",
        /// Any other.
        Other = "other",
    }
}

impl FrameType {
    /// The type of a frame's header.
    #[inline]
    pub fn of(kind: u8) -> Self {
        match kind {
            kind::HELLO => Self::Hello,
            kind::SEND => Self::Send,
            kind::ACK => Self::Ack,
            kind::WINDOW => Self::Window,
            kind::PRESENCE_QUERY => Self::PresenceQuery,
            kind::UNWATCH => Self::Unwatch,
            kind::PING => Self::Ping,
            kind::PONG => Self::Pong,
            kind::WELCOME => Self::Welcome,
            kind::ACCEPTED => Self::Accepted,
            kind::REJECTED => Self::Rejected,
            kind::MESSAGE => Self::Message,
            kind::PRESENCE => Self::Presence,
            kind::DRAIN => Self::Drain,
            kind::ERROR => Self::Error,
            _ => Self::Other,
        }
    }
}

label! {
    /// What a segment file of the log is used as.
    pub enum SegmentState {
        /// Pre-written, waiting.
        Ready = "ready",
        /// Being written.
        Active = "active",
        /// Full, its footer being written.
        Sealing = "sealing",
        /// Full, with footer.
        Sealed = "sealed",
        /// Set aside with damage in it.
        Quarantined = "quarantined",
    }
}

label! {
    /// Why a link to another node ended or did not come about. The reasons of the protocol have the names of
    /// [`EndCode`], whoever of both sides saw it.
    pub enum LinkEnd {
        /// [`EndCode::GoingAway`].
        GoingAway = "going_away",
        /// [`EndCode::Garbage`].
        Garbage = "garbage",
        /// [`EndCode::Version`].
        Version = "version",
        /// [`EndCode::Cluster`].
        Cluster = "cluster",
        /// [`EndCode::Identity`].
        Identity = "identity",
        /// [`EndCode::Layout`].
        Layout = "layout",
        /// [`EndCode::Malformed`].
        Malformed = "malformed",
        /// [`EndCode::Oversize`].
        Oversize = "oversize",
        /// [`EndCode::UnknownType`].
        UnknownType = "unknown_type",
        /// [`EndCode::OutOfOrder`].
        OutOfOrder = "out_of_order",
        /// [`EndCode::Credit`].
        Credit = "credit",
        /// [`EndCode::Silent`].
        Silent = "silent",
        /// [`EndCode::HandshakeTimeout`].
        HandshakeTimeout = "handshake_timeout",
        /// [`EndCode::SlowPeer`].
        SlowPeer = "slow_peer",
        /// [`EndCode::Full`].
        Full = "full",
        /// [`EndCode::Replaced`].
        Replaced = "replaced",
        /// The certificate is not signed by the cluster's CA.
        CertificateIssuer = "certificate_issuer",
        /// The certificate has expired.
        CertificateExpired = "certificate_expired",
        /// The certificate is another node's or another cluster's.
        CertificateName = "certificate_name",
        /// Something else is wrong with the certificate.
        CertificateOther = "certificate_other",
        /// There is no certificate.
        CertificateMissing = "certificate_missing",
        /// The other side refused our certificate, or said so of something else.
        TlsAlert = "tls_alert",
        /// The bytes are no TLS.
        TlsGarbage = "tls_garbage",
        /// Another fault of TLS.
        TlsOther = "tls_other",
        /// The connection could not be made.
        ConnectFailed = "connect_failed",
        /// The other side closed without a word.
        PeerClosed = "peer_closed",
        /// An error of the socket, a reset among them.
        IoError = "io_error",
    }
}

impl From<EndCode> for LinkEnd {
    fn from(code: EndCode) -> Self {
        Self::named(code.name())
    }
}

impl LinkEnd {
    /// The reason of that name.
    pub fn named(name: &str) -> Self {
        let found = Self::ALL.iter().find(|reason| reason.name() == name);
        *found.expect("every end of a link has a name here")
    }
}

label! {
    /// What operators call the state of a partition of a pair: [`iris_proto::replica::Label`].
    pub enum MirrorState {
        /// It started and does not serve yet.
        Recovering = "recovering",
        /// Two copies of everything.
        Normal = "normal",
        /// It serves alone.
        Solo = "solo",
        /// It serves alone, and both sides exchange what they lack.
        Healing = "healing",
        /// It is about to stop.
        Draining = "draining",
        /// It must start again with another incarnation.
        Fenced = "fenced",
    }
}

label! {
    /// Which rule acknowledges: [`iris_proto::replica::Mode`].
    pub enum MirrorMode {
        /// Nothing is acknowledged.
        Recovering = "recovering",
        /// What is synced on both nodes.
        Normal = "normal",
        /// What is synced here.
        Solo = "solo",
    }
}

label! {
    /// Why a partition ended a link to its mirror: [`iris_proto::replica::RefuseCode`].
    pub enum LinkRefusal {
        /// No version in common.
        Version = "version",
        /// Not the node that the configuration names.
        WrongNode = "wrong_node",
        /// Another number of shards or partitions.
        Layout = "layout",
        /// A frame that does not parse or may not come now.
        Malformed = "malformed",
        /// A record that does not decode or cannot be the mirror's.
        BadRecord = "bad_record",
        /// More than a bound allows.
        TooMuch = "too_much",
        /// The node was retired and did not come back empty.
        Retired = "retired",
        /// Nothing was heard for too long.
        Silent = "silent",
        /// Its numbers were given out before.
        Reincarnate = "reincarnate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;
    use crate::metrics::Label;

    fn assert_names<L: Label>() {
        let names: Vec<&str> = L::ALL.iter().map(|label| label.name()).collect();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(L::ALL[i].index(), i);
            assert!(name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
            assert!(!names[..i].contains(name), "{name} stands twice");
        }
    }

    #[test]
    fn every_label_has_its_own_snake_case_name() {
        assert_names::<CloseReason>();
        assert_names::<RejectReason>();
        assert_names::<LimitHit>();
        assert_names::<DropReason>();
        assert_names::<FrameType>();
        assert_names::<SegmentState>();
        assert_names::<MirrorState>();
        assert_names::<MirrorMode>();
        assert_names::<LinkRefusal>();
        assert_names::<TlsHandshake>();
        assert_names::<TlsFailure>();
    }

    #[test]
    fn every_limit_that_is_hit_is_a_key_of_the_configuration() {
        for hit in LimitHit::ALL {
            assert!(schema::find("limits", hit.name()).is_some(), "{}", hit.name());
        }
    }

    #[test]
    fn every_code_of_the_protocol_has_a_reason_of_the_same_name() {
        for code in Code::ALL {
            let name = match code as u16 {
                ..400 => CloseReason::from(code).name(),
                400.. => RejectReason::from(code).name(),
            };
            assert_eq!(name, code.name());
        }
    }

    #[test]
    fn every_end_of_the_protocol_has_a_name_here() {
        for code in EndCode::ALL {
            assert_eq!(LinkEnd::from(code).name(), code.name());
        }
    }
}
