//! The table of answers, exact bytes where they matter, and random input.

use proptest::prelude::*;
use simple_dns::{RCODE, rdata};

use super::*;

const IN: u16 = 1;
const UDP: Transport = Transport::Udp { max: UDP_BYTES };

/// A zone in which only `web` is running.
struct Web;

impl Zone for Web {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        (label == "web").then_some(Ipv4Addr::new(172, 16, 0, 7))
    }
}

/// A query as a resolver sends it: recursion desired, one question.
fn query(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(class.to_be_bytes());
    bytes
}

/// As [`query`], with an OPT.
fn with_opt(mut query: Vec<u8>, size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    query[11] += 1;
    query.extend([0, 0, 41]);
    query.extend(size.to_be_bytes());
    query.extend(ttl.to_be_bytes());
    query.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    query.extend(options);
    query
}

fn code(bytes: &[u8]) -> u8 {
    bytes[3] & 0xf
}

fn answer_to(name: &str, kind: u16) -> Vec<u8> {
    answer(&query(name, kind, IN), &Web, UDP).unwrap()
}

/// Response code, number of answers, and whether the SOA is present.
fn shape(bytes: &[u8]) -> (RCODE, usize, bool) {
    let packet = Packet::parse(bytes).unwrap();
    let soa = packet.name_servers.iter().any(|record| {
        assert_eq!((record.name.to_string().as_str(), record.ttl), ("vm", NEGATIVE_TTL_S));
        matches!(&record.rdata, RData::SOA(soa) if soa.minimum == NEGATIVE_TTL_S)
    });
    (packet.rcode(), packet.answers.len(), soa)
}

#[test]
fn an_address_answer_byte_by_byte() {
    let mut expected = query("Web.vM", 1, IN);
    // Response, authoritative, recursion desired as in the query; one answer.
    expected[2..4].copy_from_slice(&[0x85, 0x00]);
    expected[7] = 1;
    // Name as in the question, A, IN, TTL, four bytes.
    expected.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 172, 16, 0, 7]);
    assert_eq!(answer_to("Web.vM", 1), expected);
    assert_eq!(answer(&query("Web.vM", 1, IN), &Web, Transport::Tcp).unwrap(), expected);
}

#[test]
fn answers_follow_the_table() {
    use RCODE::{NameError, NoError};
    for (name, kind, expected) in [
        ("web.vm", 1, (NoError, 1, false)),
        ("WEB.VM", 255, (NoError, 1, false)),
        ("web.vm", 28, (NoError, 0, true)),
        ("web.vm", 65, (NoError, 0, true)),
        ("web.vm", 6, (NoError, 0, true)),
        ("web.vm", 54_321, (NoError, 0, true)),
        ("vm", 6, (NoError, 1, false)),
        ("VM", 2, (NoError, 1, false)),
        ("vm", 255, (NoError, 2, false)),
        ("vm", 1, (NoError, 0, true)),
        ("vm", 28, (NoError, 0, true)),
        ("db.vm", 1, (NameError, 0, true)),
        ("db.vm", 28, (NameError, 0, true)),
        ("x.web.vm", 1, (NameError, 0, true)),
        ("web.web.vm", 1, (NameError, 0, true)),
    ] {
        let bytes = answer_to(name, kind);
        // The parser does not know every requested type.
        let mut known = bytes.clone();
        let end = HEADER + name.len() + 2;
        known[end..end + 2].copy_from_slice(&[0, 1]);
        assert_eq!(shape(&known), expected, "{name} {kind}");
        assert_eq!(bytes[2..4], [0x85, [0, 3][usize::from(expected.0 == NameError)]], "{name}");
        let question = &query(name, kind, IN)[HEADER..];
        assert_eq!(&bytes[HEADER..HEADER + question.len()], question, "{name} {kind}");
    }
    let odd = [b"\x03w.b\x02vm\x00".as_slice(), b"\x03w\xff\x00\x02vm\x00"];
    for name in odd {
        let message = [&query("", 1, IN)[..HEADER], name, &[0, 1, 0, 1]].concat();
        assert_eq!(shape(&answer(&message, &Web, UDP).unwrap()), (NameError, 0, true));
    }
}

#[test]
fn the_apex_has_soa_and_ns() {
    let bytes = answer_to("vm", 255);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.answers[0].rdata, RData::SOA(soa()));
    assert_eq!(packet.answers[1].rdata, RData::NS(rdata::NS(Name::new_unchecked("vm"))));
}

#[test]
fn other_zones_and_classes_are_refused() {
    let refused = |message: Vec<u8>| {
        let bytes = answer(&message, &Web, UDP).unwrap();
        // Not authoritative, no records, the question repeated.
        assert_eq!(bytes[2..4], [0x81, 5]);
        assert_eq!(bytes[4..HEADER], [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[HEADER..], message[HEADER..]);
    };
    for name in ["", "com", "example.com", "web.vmm", "vm.com", "xvm"] {
        refused(query(name, 1, IN));
    }
    // Chaos, any, and IN with the bit that mDNS uses.
    for class in [3, 255, 0, 0x8001, 7777] {
        refused(query("web.vm", 1, class));
    }
    for transfer in [251, 252] {
        refused(query("vm", transfer, IN));
    }
}

#[test]
fn other_operations_are_not_implemented() {
    for opcode in 1..16 {
        let mut message = with_opt(query("web.vm", 1, IN), UDP_BYTES, 0, &[]);
        message[2] = opcode << 3;
        let mut expected = message.clone();
        expected[2..4].copy_from_slice(&[0x80 | opcode << 3, 4]);
        assert_eq!(answer(&message, &Web, UDP).unwrap(), expected);
        // A question that cannot be parsed is not repeated.
        let cut = answer(&message[..20], &Web, UDP).unwrap();
        assert_eq!(cut, [0xab, 0xcd, 0x80 | opcode << 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn responses_and_fragments_are_not_answered() {
    let mut response = query("web.vm", 1, IN);
    response[2] |= 0x80;
    assert_eq!(answer(&response, &Web, UDP), None);
    let whole = query("web.vm", 1, IN);
    for length in 0..HEADER {
        assert_eq!(answer(&whole[..length], &Web, UDP), None, "{length}");
    }
}

#[test]
fn irrelevant_flags_are_ignored() {
    let mut message = query("web.vm", 1, IN);
    // Every flag but QR and the operation.
    message[2..4].copy_from_slice(&[0x07, 0xff]);
    let bytes = answer(&message, &Web, UDP).unwrap();
    // AA is set; RD and CD are repeated; TC, RA, Z and AD are not.
    assert_eq!(bytes[2..4], [0x85, 0x10]);
    assert_eq!(shape(&bytes).1, 1);
}

#[test]
fn malformed_queries_get_formerr() {
    let format_error = [0xab, 0xcd, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let check = |what: &str, message: &[u8]| {
        assert_eq!(answer(message, &Web, UDP).unwrap(), format_error, "{what}");
    };
    let whole = with_opt(query("web.vm", 1, IN), 1232, 0, &[0, 10, 0, 2, 1, 2]);
    for length in HEADER..whole.len() {
        check("cut", &whole[..length]);
    }
    check("more", &[&whole[..], &[0]].concat());
    let count = |at: usize, value: u8| {
        let mut message = query("web.vm", 1, IN);
        message[at] = value;
        message
    };
    check("no question", &count(5, 0));
    check("no question", &count(5, 0)[..HEADER]);
    check("two questions", &[&count(5, 2)[..], &query("db.vm", 1, IN)[HEADER..]].concat());
    check("announced", &count(11, 1));
    check("65280 records", &count(10, 255));
    let named = |name: &[u8]| [&whole[..HEADER - 1], &[0], name, &[0, 1, 0, 1]].concat();
    check("a pointer", &named(&[0xc0, 12]));
    check("a reserved label", &named(&[0x40, 0]));
    let label = [&[63][..], &[b'a'; 63]].concat();
    check("256 bytes", &named(&[&label.repeat(3)[..], &[62], &[b'a'; 62], &[0]].concat()));
    let longest = named(&[&label.repeat(3)[..], &[61], &[b'a'; 61], &[0]].concat());
    assert_eq!(code(&answer(&longest, &Web, UDP).unwrap()), 5, "255 bytes");
    check("two OPTs", &with_opt(whole.clone(), 1232, 0, &[]));
    check("an option too long", &with_opt(query("web.vm", 1, IN), 1232, 0, &[0, 10, 0, 9, 1]));
    let mut misplaced = with_opt(query("web.vm", 1, IN), 1232, 0, &[]);
    misplaced.swap(7, 11);
    check("an OPT as an answer", &misplaced);
    let mut owned = with_opt(query("web.vm", 1, IN), 1232, 0, &[]);
    owned.splice(24..25, [0xc0, 12]);
    check("an OPT with a name", &owned);
}

#[test]
fn edns_answers_have_our_own_opt() {
    let plain = answer_to("web.vm", 1);
    let with = |ttl: u32| {
        // A cookie option is ignored.
        let message = with_opt(query("web.vm", 1, IN), 4096, ttl, &[0, 10, 0, 2, 1, 2]);
        answer(&message, &Web, UDP).unwrap()
    };
    // Root, OPT, 1232, code 0, version 0, DNSSEC OK as in the query, no data.
    for (ttl, flags) in [(0, 0x00), (0x0000_8000, 0x80), (0x0000_ffff, 0x80)] {
        let mut expected = plain.clone();
        expected[11] = 1;
        expected.extend([0, 0, 41, 0x04, 0xd0, 0, 0, flags, 0, 0, 0]);
        assert_eq!(with(ttl), expected);
    }
    // Version 1: code 16, whose upper bits are the first byte of the TTL, and our version.
    let bytes = with(0x0001_8000);
    assert_eq!(bytes[2..HEADER], [0x81, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(bytes[HEADER..24], plain[HEADER..24]);
    assert_eq!(bytes[24..], [0, 0, 41, 0x04, 0xd0, 1, 0, 0x80, 0, 0, 0]);
    // Refusals contain the OPT as well.
    let refused = with_opt(query("example.com", 1, IN), 512, 0, &[]);
    assert_eq!(answer(&refused, &Web, UDP).unwrap()[8..HEADER], [0, 0, 0, 1]);
    // Another record beside it is skipped.
    let mut signed = with_opt(query("web.vm", 1, IN), 1232, 0, &[]);
    signed[11] += 1;
    signed.extend([0xc0, 12, 0, 250, 0, 255, 0, 0, 0, 0, 0, 1, 9]);
    assert_eq!(code(&answer(&signed, &Web, UDP).unwrap()), 0);
}

#[test]
fn large_answers_are_truncated_with_tc() {
    let message = with_opt(query("db.vm", 1, IN), 4096, 0, &[]);
    let whole = answer(&message, &Web, UDP).unwrap();
    let max = |max: usize| Transport::Udp { max: u16::try_from(max).unwrap() };
    assert_eq!(answer(&message, &Web, max(whole.len())).unwrap(), whole);
    let cut = answer(&message, &Web, max(whole.len() - 1)).unwrap();
    let mut expected = message.clone();
    expected[2..4].copy_from_slice(&[0x87, 3]);
    expected[26..28].copy_from_slice(&UDP_BYTES.to_be_bytes());
    assert_eq!(cut, expected, "question and OPT stay");
    assert_eq!(answer(&message, &Web, Transport::Tcp).unwrap(), whole);
}

#[test]
fn answers_fit_the_size_of_the_client() {
    let edns = |size| Some(Edns { size, version: 0, dnssec_ok: 0 });
    assert_eq!(size_limit(None, UDP), 512);
    assert_eq!(size_limit(edns(100), UDP), 512, "less is read as 512 (RFC 6891 section 6.2.3)");
    assert_eq!(size_limit(edns(800), UDP), 800);
    assert_eq!(size_limit(edns(65_535), UDP), 1232);
    assert_eq!(size_limit(None, Transport::Tcp), 65_535);
    // The longest name, with every record that an answer can contain.
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}.vm", "a".repeat(58));
    assert!(answer(&query(&name, 1, IN), &Web, UDP).unwrap().len() <= 512);
}

/// Properties of every answer to any message.
fn is_sound(message: &[u8], transport: Transport) -> Result<(), TestCaseError> {
    let Some(bytes) = answer(message, &Web, transport) else {
        prop_assert!(message.len() < HEADER || message[2] & 0x80 != 0);
        return Ok(());
    };
    prop_assert_eq!(&bytes[..2], &message[..2]);
    prop_assert_eq!(bytes[2] & 0x78, message[2] & 0x78, "the operation");
    prop_assert!(bytes[2] & 0x80 != 0 && bytes[3] & 0x80 == 0);
    prop_assert!(bytes.len() <= usize::from(UDP_BYTES));
    prop_assert!(Header::read(&bytes).is_some());
    // An answer is not answered: two servers cannot loop.
    prop_assert_eq!(answer(&bytes, &Web, transport), None);
    Ok(())
}

proptest! {
    #[test]
    fn garbage_is_handled(message in prop::collection::vec(any::<u8>(), 0..600)) {
        is_sound(&message, UDP)?;
        is_sound(&message, Transport::Tcp)?;
    }

    #[test]
    fn corrupted_queries_are_handled(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = with_opt(query("web.vm", 1, IN), 1232, 0, &[0, 10, 0, 2, 1, 2]);
        for (place, value) in changes {
            let at = place.index(message.len());
            message[at] = value;
        }
        is_sound(&message[..cut.index(message.len() + 1)], UDP)?;
        message.extend(tail);
        is_sound(&message, UDP)?;
    }

    #[test]
    fn every_name_gets_a_complete_answer(name in "[a-zA-Z0-9.-]{0,80}", kind in any::<u16>()) {
        prop_assume!(name.split('.').all(|label| label.len() <= 63));
        let message = query(&name, kind, IN);
        let bytes = answer(&message, &Web, UDP).unwrap();
        prop_assert!([0, 3, 5].contains(&code(&bytes)));
        prop_assert_eq!(&bytes[HEADER..message.len()], &message[HEADER..]);
    }
}
