//! What is read of an X.509 certificate: whom it names, and from when to when it holds.
//!
//! Whether it can be trusted is decided elsewhere, before anything here is believed.

use crate::config::CertificateName;

/// A user has no longer name.
const NAME_SIZE_MAX: usize = 255;

/// The subject alternative names' identifier, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1D, 0x11];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// RabbitMQ's names of what a distinguished name is made of.
const ATTRIBUTES: [(&[u8], &str); 17] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x04], "SN"),
    (&[0x55, 0x04, 0x05], "SERIALNUMBER"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0A], "O"),
    (&[0x55, 0x04, 0x0B], "OU"),
    (&[0x55, 0x04, 0x0C], "TITLE"),
    (&[0x55, 0x04, 0x2A], "GIVENNAME"),
    (&[0x55, 0x04, 0x2B], "INITIALS"),
    (&[0x55, 0x04, 0x2C], "GENERATIONQUALIFIER"),
    (&[0x55, 0x04, 0x41], "PSEUDONYM"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x01], "UID"),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x01], "EMAILADDRESS"),
];

pub(super) struct Certificate<'a> {
    subject: &'a [u8],
    alternative_names: &'a [u8],
    pub(super) not_before: Moment,
    pub(super) not_after: Moment,
}

/// A second in time; shown as a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since 1970.
    pub(super) seconds: i64,
    day: (i64, i64, i64),
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.day;
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl<'a> Certificate<'a> {
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut signed = Der(der).inside(SEQUENCE)?.inside(SEQUENCE)?;
        signed.skip_if(context(0)); // version
        signed.inside(INTEGER)?; // serial number
        signed.inside(SEQUENCE)?; // algorithm
        signed.inside(SEQUENCE)?; // issuer
        let mut validity = signed.inside(SEQUENCE)?;
        let not_before = Moment::read(validity.next()?)?;
        let not_after = Moment::read(validity.next()?)?;
        let subject = signed.inside(SEQUENCE)?.0;
        signed.inside(SEQUENCE)?; // public key
        let mut alternative_names = &[][..];
        while let Some((tag, rest)) = signed.next() {
            if tag == context(3) {
                alternative_names = Der(rest).alternative_names()?;
            }
        }
        Some(Self { subject, alternative_names, not_before, not_after })
    }

    /// The name of the user; `None` where there is none that a user could have.
    pub(super) fn user(&self, from: CertificateName) -> Option<String> {
        let name = match from {
            CertificateName::DistinguishedName => self.distinguished_name(),
            CertificateName::CommonName => self.common_name(),
            CertificateName::Email => self.alternative_name(1),
            CertificateName::DnsName => self.alternative_name(2),
            CertificateName::Uri => self.alternative_name(6),
        }?;
        let fits = (1..=NAME_SIZE_MAX).contains(&name.len()) && !name.contains(char::is_control);
        fits.then_some(name)
    }

    /// As RFC 4514 writes it and RabbitMQ shows it: the most particular part first.
    fn distinguished_name(&self) -> Option<String> {
        let mut parts = Vec::new();
        for part in self.parts() {
            let values = part?.into_iter().map(|(kind, value)| {
                let known = ATTRIBUTES.iter().find(|(id, _)| *id == kind);
                let kind = known.map_or_else(|| dotted(kind), |(_, name)| (*name).to_owned());
                format!("{kind}={}", escaped(&value))
            });
            parts.push(values.collect::<Vec<_>>().join("+"));
        }
        parts.reverse();
        Some(parts.join(","))
    }

    fn common_name(&self) -> Option<String> {
        let mut names = Vec::new();
        for part in self.parts() {
            names.extend(part?.into_iter().filter(|(kind, _)| *kind == COMMON_NAME));
        }
        let names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    fn alternative_name(&self, kind: u8) -> Option<String> {
        let mut names = Der(self.alternative_names);
        while let Some((tag, name)) = names.next() {
            if tag == 0x80 | kind {
                return String::from_utf8(name.to_vec()).ok();
            }
        }
        None
    }

    /// Each part of the subject: kinds and values, mostly one. `None` stands for one that cannot be read.
    fn parts(&self) -> impl Iterator<Item = Option<Vec<(&'a [u8], String)>>> {
        let mut subject = Der(self.subject);
        std::iter::from_fn(move || {
            (!subject.0.is_empty()).then(|| {
                let Some(mut part) = subject.inside(SET) else {
                    subject = Der(&[]);
                    return None;
                };
                let mut values = Vec::new();
                while !part.0.is_empty() {
                    let mut pair = part.inside(SEQUENCE)?;
                    let kind = pair.inside(OBJECT_ID)?.0;
                    values.push((kind, text(pair.next()?)?));
                }
                Some(values)
            })
        })
    }
}

/// `1.2.840.113549`.
fn dotted(id: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0u64;
    for byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    if let Some(first) = numbers.first_mut() {
        let root = (*first / 40).min(2);
        *first -= root * 40;
        numbers.insert(0, root);
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

fn escaped(value: &str) -> String {
    let mut out = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '\0'..='\x1F' | '\x7F' => out.push_str(&format!("\\{:02X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// A string of any of the kinds that names are written in.
fn text((tag, bytes): (u8, &[u8])) -> Option<String> {
    match tag {
        // UTF-8, and what is ASCII.
        0x0C | 0x12 | 0x13 | 0x16 | 0x1A => String::from_utf8(bytes.to_vec()).ok(),
        // Teletex, which everybody takes for Latin-1.
        0x14 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        0x1E => {
            let (pairs, []) = bytes.as_chunks() else { return None };
            char::decode_utf16(pairs.iter().map(|pair| u16::from_be_bytes(*pair)))
                .collect::<Result<_, _>>()
                .ok()
        }
        _ => None,
    }
}

impl Moment {
    fn read((tag, bytes): (u8, &[u8])) -> Option<Self> {
        let digits = std::str::from_utf8(bytes).ok()?.strip_suffix('Z')?;
        if !digits.bytes().all(|it| it.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match (tag, digits.len()) {
            (0x17, 12) => {
                let year: i64 = digits[..2].parse().ok()?;
                (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
            }
            (0x18, 14) => (digits[..4].parse().ok()?, &digits[4..]),
            _ => return None,
        };
        let two = |at: usize| rest[at..at + 2].parse::<i64>().ok();
        let (month, day) = (two(0)?, two(2)?);
        if !(1..=12).contains(&month) {
            return None;
        }
        // Days since 1970; years are counted from March, so that a leap day is a year's last.
        let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
        let seconds = ((days * 24 + two(4)?) * 60 + two(6)?) * 60 + two(8)?;
        Some(Self { seconds, day: (year, month, day) })
    }
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

const fn context(number: u8) -> u8 {
    0xA0 | number
}

/// Values behind each other, each with a tag and a length.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], mut rest) = self.0.split_first_chunk()?;
        let length = match length {
            0..=0x7F => usize::from(length),
            0x81..=0x83 => {
                let (digits, after) = rest.split_at_checked(usize::from(length & 0x7F))?;
                rest = after;
                digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit))
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// What the next value holds, if it has this tag.
    fn inside(&mut self, wanted: u8) -> Option<Self> {
        let mut ahead = *self;
        match ahead.next()? {
            (tag, value) if tag == wanted => {
                *self = ahead;
                Some(Self(value))
            }
            _ => None,
        }
    }

    fn skip_if(&mut self, tag: u8) {
        let _ = self.inside(tag);
    }

    /// From a certificate's extensions.
    fn alternative_names(mut self) -> Option<&'a [u8]> {
        let mut extensions = self.inside(SEQUENCE)?;
        while let Some(mut extension) = extensions.inside(SEQUENCE) {
            if extension.inside(OBJECT_ID)?.0 == ALTERNATIVE_NAMES {
                extension.skip_if(0x01); // whether it is critical
                return Some(extension.inside(OCTETS)?.inside(SEQUENCE)?.0);
            }
        }
        Some(&[])
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType, date_time_ymd};
    use rstest::rstest;

    use super::*;
    use crate::config::CertificateName::*;

    fn certificate(build: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        build(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn named(names: &[(DnType, &str)]) -> Vec<u8> {
        certificate(|it| {
            for (kind, value) in names {
                it.distinguished_name.push(kind.clone(), *value);
            }
        })
    }

    fn user(der: &[u8], from: CertificateName) -> Option<String> {
        Certificate::read(der).expect("it can be read").user(from)
    }

    #[test]
    fn distinguished_name_begins_with_what_is_most_particular() {
        let der = named(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Smith, Jones & Co"),
            (DnType::CommonName, "anna"),
        ]);
        let name = user(&der, DistinguishedName);
        assert_eq!(name.as_deref(), Some("CN=anna,O=Smith\\, Jones & Co,C=DE"));
        assert_eq!(user(&der, CommonName).as_deref(), Some("anna"));
    }

    #[rstest]
    #[case("#1 \"a\"", "\\#1 \\\"a\\\"")]
    #[case(" a b ", "\\ a b\\ ")]
    #[case("a+b;c<d>e\\", "a\\+b\\;c\\<d\\>e\\\\")]
    #[case("a\0b\x7F", "a\\00b\\7F")]
    #[case("Zoë", "Zoë")]
    fn special_characters_are_escaped(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(escaped(value), expected);
    }

    #[test]
    fn alternative_names_are_told_apart() {
        let der = certificate(|it| {
            it.distinguished_name.push(DnType::CommonName, "x");
            it.subject_alt_names = vec![
                SanType::Rfc822Name("anna@example.org".try_into().unwrap()),
                SanType::DnsName("one.example".try_into().unwrap()),
                SanType::DnsName("two.example".try_into().unwrap()),
                SanType::URI("urn:host:1".try_into().unwrap()),
            ];
        });
        for (from, expected) in
            [(Email, "anna@example.org"), (DnsName, "one.example"), (Uri, "urn:host:1")]
        {
            assert_eq!(user(&der, from).as_deref(), Some(expected));
        }
        let bare = named(&[(DnType::CommonName, "x")]);
        assert_eq!(user(&bare, DnsName), None);
    }

    #[rstest]
    #[case(DnValue::BmpString("Zoë".try_into().unwrap()), "Zoë")]
    #[case(DnValue::TeletexString("Zoe".try_into().unwrap()), "Zoe")]
    #[case(DnValue::PrintableString("Zoe".try_into().unwrap()), "Zoe")]
    #[case(DnValue::Utf8String("Zoë".into()), "Zoë")]
    fn names_come_in_several_alphabets(#[case] value: DnValue, #[case] expected: &str) {
        let der = certificate(|it| it.distinguished_name.push(DnType::CommonName, value));
        assert_eq!(user(&der, CommonName).as_deref(), Some(expected));
    }

    #[test]
    fn what_no_user_can_be_called_is_no_name() {
        assert_eq!(user(&named(&[]), DistinguishedName), None);
        assert_eq!(user(&named(&[(DnType::CommonName, "anna\0.example")]), CommonName), None);
        let long = "x".repeat(256);
        assert_eq!(user(&named(&[(DnType::CommonName, &long)]), CommonName), None);
    }

    #[test]
    fn unknown_attributes_have_numbers() {
        let der = named(&[(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 1]), "x")]);
        assert_eq!(user(&der, DistinguishedName).as_deref(), Some("1.2.840.113549.1.1=x"));
    }

    #[rstest]
    #[case(1999, 12, 31, 946_598_400)]
    #[case(2000, 2, 29, 951_782_400)]
    #[case(2026, 11, 25, 1_795_564_800)]
    #[case(2052, 3, 1, 2_592_864_000)]
    fn validity_is_read(
        #[case] year: i32,
        #[case] month: u8,
        #[case] day: u8,
        #[case] seconds: i64,
    ) {
        let der = certificate(|it| it.not_after = date_time_ymd(year, month, day));
        let not_after = Certificate::read(&der).unwrap().not_after;
        assert_eq!(not_after.seconds, seconds);
        assert_eq!(not_after.to_string(), format!("{year}-{month:02}-{day:02}"));
    }

    #[test]
    fn a_certificate_cut_or_changed_anywhere_is_no_accident() {
        let der = named(&[(DnType::CommonName, "anna"), (DnType::CountryName, "DE")]);
        for end in 0..der.len() {
            assert!(Certificate::read(&der[..end]).is_none(), "{end}");
        }
        for at in 0..der.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut changed = der.clone();
                changed[at] ^= flip;
                if let Some(certificate) = Certificate::read(&changed) {
                    for from in [DistinguishedName, CommonName, DnsName, Email, Uri] {
                        let _ = certificate.user(from);
                    }
                }
            }
        }
    }
}
