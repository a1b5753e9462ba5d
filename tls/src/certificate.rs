//! The few fields of an X.509 certificate (RFC 5280) that Iris itself looks at: how long it is valid, and whose it is.
//!
//! Signatures, chains and purposes are rustls's matter; what is read here was verified before, or is our own. The bytes
//! are a client's all the same, so nothing is believed: every length is checked, and what does not parse is `None`.

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// From when it is valid, Unix seconds; earlier than 1970 is 0.
    pub not_before_s: u64,
    /// Until when it is valid, Unix seconds, that one included.
    pub not_after_s: u64,
    /// The first common name of its subject.
    pub common_name: Option<String>,
    /// Names of the DNS among its alternative names, in order.
    pub dns: Vec<String>,
    /// URIs among them.
    pub uris: Vec<String>,
    /// Mail addresses among them.
    pub emails: Vec<String>,
}

/// Names of one certificate that are read, at most.
const NAMES_MAX: usize = 256;

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The version, `[0]`, and the extensions, `[3]`.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Alternatives of a GeneralName (RFC 5280, section 4.2.1.6).
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI_NAME: u8 = 0x86;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// DER elements one after another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut len = usize::from(first);
        if first >= 0x80 {
            let bytes = usize::from(first & 0x7f);
            if bytes == 0 || bytes > 3 || rest.len() < bytes {
                return None;
            }
            len = rest[..bytes].iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
            rest = &rest[bytes..];
        }
        if rest.len() < len {
            return None;
        }
        let (content, rest) = rest.split_at(len);
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    /// As [`Self::expect`], for an element that may be missing.
    fn skip_if(&mut self, wanted: u8) -> Option<()> {
        if self.0.first() == Some(&wanted) {
            self.next()?;
        }
        Some(())
    }
}

/// Reads a certificate.
pub fn read(der: &[u8]) -> Option<Facts> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    let mut body = Der(certificate.expect(SEQUENCE)?);
    body.skip_if(VERSION)?;
    // Serial number, algorithm of the signature, issuer.
    (0..3).try_for_each(|_| body.next().map(drop))?;
    let mut validity = Der(body.expect(SEQUENCE)?);
    let mut facts = Facts {
        not_before_s: time(validity.next()?)?,
        not_after_s: time(validity.next()?)?,
        ..Facts::default()
    };
    facts.common_name = common_name(body.expect(SEQUENCE)?);
    // The public key; issuer's and subject's unique ids, which nobody uses.
    body.next()?;
    while let Some((tag, content)) = body.next() {
        if tag == EXTENSIONS {
            alternative_names(Der(content).expect(SEQUENCE)?, &mut facts)?;
        }
    }
    Some(facts)
}

fn common_name(subject: &[u8]) -> Option<String> {
    let mut subject = Der(subject);
    while let Some(set) = subject.expect(SET) {
        let mut attributes = Der(set);
        while let Some(attribute) = attributes.expect(SEQUENCE) {
            let mut attribute = Der(attribute);
            if attribute.expect(OID)? == COMMON_NAME {
                let (tag, text) = attribute.next()?;
                let is_text = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&tag);
                return String::from_utf8(text.to_vec()).ok().filter(|_| is_text);
            }
        }
    }
    None
}

fn alternative_names(extensions: &[u8], facts: &mut Facts) -> Option<()> {
    let mut extensions = Der(extensions);
    while let Some(extension) = extensions.expect(SEQUENCE) {
        let mut extension = Der(extension);
        let is_names = extension.expect(OID)? == SUBJECT_ALT_NAME;
        extension.skip_if(BOOLEAN)?;
        let value = extension.expect(OCTET_STRING)?;
        if !is_names {
            continue;
        }
        let mut names = Der(Der(value).expect(SEQUENCE)?);
        let mut count = 0;
        while let Some((tag, content)) = names.next() {
            count += 1;
            let list = match tag {
                DNS_NAME => &mut facts.dns,
                URI_NAME => &mut facts.uris,
                RFC822_NAME => &mut facts.emails,
                _ => continue,
            };
            if count <= NAMES_MAX && content.is_ascii() {
                list.push(String::from_utf8_lossy(content).into_owned());
            }
        }
    }
    Some(())
}

/// UTCTime or GeneralizedTime as certificates write them: to the second, in UTC (RFC 5280, section 4.1.2.5).
fn time((tag, text): (u8, &[u8])) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) if is_digits => {
            let year: i64 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) if is_digits => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Days from 1970-01-01 of the Gregorian calendar. Years begin in March, so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let (of_era, of_year) = (year.rem_euclid(400), (153 * month + 2) / 5 + day - 1);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(year: i32) -> Vec<u8> {
        let mut params =
            CertificateParams::new(vec!["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("iris:user/u1".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("u@x.example".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, "u1 \u{e9}");
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(year, 3, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_validity_are_read() {
        // UTCTime until 2049, GeneralizedTime from 2050.
        for (year, not_after_s) in [(2026, 1_772_323_200), (2051, 2_561_241_600)] {
            let facts = read(&certificate(year)).unwrap();
            let wanted = Facts {
                not_before_s: 1_709_164_800,
                not_after_s,
                common_name: Some("u1 \u{e9}".to_owned()),
                dns: vec!["a.example".to_owned(), "*.b.example".to_owned()],
                uris: vec!["iris:user/u1".to_owned()],
                emails: vec!["u@x.example".to_owned()],
            };
            assert_eq!(facts, wanted);
        }
    }

    #[test]
    fn a_certificate_that_is_cut_short_is_none() {
        let der = certificate(2026);
        assert!((0..der.len()).all(|len| read(&der[..len]).is_none()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
            at in any::<u16>(),
            with in any::<u8>(),
        ) {
            let _ = read(&bytes);
            let mut der = certificate(2026);
            let at = usize::from(at) % der.len();
            der[at] = with;
            let _ = read(&der);
            bytes.splice(0..0, [SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]);
            let _ = read(&bytes);
        }
    }
}
