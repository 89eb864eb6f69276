//! Computes the answer to a DNS message: a pure function from bytes to bytes.
//!
//! | query | answer |
//! | --- | --- |
//! | `NAME.vm` A, of a running VM | its address |
//! | `NAME.vm`, another type | no records, with the SOA |
//! | `vm` SOA or NS | the record |
//! | another name below `vm` | NXDOMAIN, with the SOA |
//! | another zone, another class, a transfer | REFUSED |
//! | another operation | NOTIMP |
//! | an unknown version of EDNS | BADVERS |
//! | a malformed message | FORMERR |
//! | a response, or less than a header | none |

use std::net::Ipv4Addr;

use simple_dns::rdata::{A, NS, OPT, RData, SOA};
use simple_dns::{
    CLASS, Label, Name, Packet, QTYPE, Question, ResourceRecord, SimpleDnsError, TYPE,
};

use super::Zone;
use super::query::{Edns, HEADER, Header, Query};

/// The zone in records.
const ZONE: &str = "vm";
/// TTL of an address in seconds: short, because VMs come and go.
const TTL_S: u32 = 5;
/// TTL of a negative answer in seconds: short, because a client may wait for a start.
const NEGATIVE_TTL_S: u32 = 1;
/// Maximum size of a UDP message in bytes; avoids fragmentation.
pub const UDP_BYTES: u16 = 1232;
/// Maximum size of a UDP answer to a client without EDNS (RFC 1035 section 4.2.1).
const PLAIN_UDP_BYTES: u16 = 512;

const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const CHECKING_DISABLED: u16 = 0x0010;

/// Transport of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp {
        /// Maximum size in bytes.
        max: u16,
    },
    /// A TCP stream.
    Tcp,
}

/// Response codes (IANA).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    NoError = 0,
    FormErr = 1,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
}

/// The content of an answer.
struct Answer {
    code: Code,
    authoritative: u16,
    answers: Vec<RData<'static>>,
    soa: bool,
}

impl Answer {
    fn error(code: Code) -> Self {
        Self { code, authoritative: 0, answers: Vec::new(), soa: false }
    }

    fn records(answers: Vec<RData<'static>>) -> Self {
        let soa = answers.is_empty();
        Self { code: Code::NoError, authoritative: AUTHORITATIVE, answers, soa }
    }

    fn no_such_name() -> Self {
        Self { code: Code::NxDomain, ..Self::records(Vec::new()) }
    }
}

/// Answers a message; `None` = sends no answer.
pub fn answer(message: &[u8], zone: &dyn Zone, transport: Transport) -> Option<Vec<u8>> {
    let header = Header::read(message)?;
    if header.is_response() {
        return None;
    }
    let query = Query::read(message, header);
    let edns = query.as_ref().and_then(|query| query.edns);
    let answer = match &query {
        // Header flags differ for other operations, but the encoding is the same.
        _ if header.opcode() != 0 => Answer::error(Code::NotImp),
        Some(query) => decide(query, zone),
        None => Answer::error(Code::FormErr),
    };
    write(header, query.as_ref(), &answer, size_limit(edns, transport))
}

/// Maximum size of an answer in bytes.
fn size_limit(edns: Option<Edns>, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp { max } => {
            let taken = edns.map_or(PLAIN_UDP_BYTES, |edns| edns.size.max(PLAIN_UDP_BYTES));
            usize::from(taken.min(max))
        }
    }
}

fn decide(query: &Query<'_>, zone: &dyn Zone) -> Answer {
    let question = &query.question;
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Answer::error(Code::BadVers);
    }
    let kind = QTYPE::try_from(question.kind).ok();
    let transfer = matches!(kind, Some(QTYPE::AXFR | QTYPE::IXFR));
    if question.class != u16::from(CLASS::IN) || transfer {
        return Answer::error(Code::Refused);
    }
    let Some((last, labels)) = question.labels.split_last() else {
        return Answer::error(Code::Refused);
    };
    if !last.eq_ignore_ascii_case(ZONE.as_bytes()) {
        return Answer::error(Code::Refused);
    }
    let wants = |wanted: TYPE| kind == Some(wanted.into()) || kind == Some(QTYPE::ANY);
    match labels {
        [] => {
            let mut answers = Vec::new();
            answers.extend(wants(TYPE::SOA).then(|| RData::SOA(soa())));
            answers.extend(wants(TYPE::NS).then(|| RData::NS(NS(Name::new_unchecked(ZONE)))));
            Answer::records(answers)
        }
        [label] => match address(label, zone) {
            None => Answer::no_such_name(),
            Some(address) if wants(TYPE::A) => Answer::records(vec![RData::A(A::from(address))]),
            Some(_) => Answer::records(Vec::new()),
        },
        _ => Answer::no_such_name(),
    }
}

fn address(label: &[u8], zone: &dyn Zone) -> Option<Ipv4Addr> {
    zone.address(&std::str::from_utf8(label).ok()?.to_ascii_lowercase())
}

/// The values are those of RFC 6303 for a locally served zone. The last one limits the TTL of
/// negative answers (RFC 2308 section 5).
fn soa() -> SOA<'static> {
    SOA {
        mname: Name::new_unchecked(ZONE),
        rname: Name::new_unchecked("nobody.invalid"),
        serial: 1,
        refresh: 3600,
        retry: 1200,
        expire: 604_800,
        minimum: NEGATIVE_TTL_S,
    }
}

/// Encodes an answer; one larger than `limit` bytes is truncated to its header, question and OPT.
fn write(
    header: Header,
    query: Option<&Query<'_>>,
    answer: &Answer,
    size_limit: usize,
) -> Option<Vec<u8>> {
    let kept = header.flags & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
    let flags = RESPONSE | kept | answer.authoritative | (answer.code as u16 & 0xf);
    let written = match message(header.id, flags, query, answer) {
        Ok(whole) if whole.len() <= size_limit => Ok(whole),
        Ok(_) => {
            let nothing = Answer { answers: Vec::new(), soa: false, ..*answer };
            message(header.id, flags | TRUNCATED, query, &nothing)
        }
        Err(error) => Err(error),
    };
    // Writing to memory cannot fail.
    written.ok()
}

fn message(
    id: u16,
    flags: u16,
    query: Option<&Query<'_>>,
    answer: &Answer,
) -> Result<Vec<u8>, SimpleDnsError> {
    let mut packet = Packet::new_reply(id);
    if let Some(Query { question, edns }) = query {
        let labels = question.labels.iter().map(|label| Label::new(*label));
        let name = Name::new_with_labels(&labels.collect::<Result<Vec<_>, _>>()?);
        let record = |data: &RData<'static>| {
            ResourceRecord::new(name.clone(), CLASS::IN, TTL_S, data.clone())
        };
        packet.answers = answer.answers.iter().map(record).collect();
        // Type and class are written below.
        let (kind, class) = (QTYPE::ANY, CLASS::IN.into());
        packet.questions.push(Question::new(name.clone(), kind, class, false));
        packet.additional_records.extend(edns.map(|edns| opt(edns, answer.code)));
    }
    if answer.soa {
        let name = Name::new_unchecked(ZONE);
        let data = RData::SOA(soa());
        packet.name_servers.push(ResourceRecord::new(name, CLASS::IN, NEGATIVE_TTL_S, data));
    }
    let mut bytes = packet.build_bytes_vec_compressed()?;
    // simple-dns cannot encode every operation, type and class.
    put(&mut bytes, 2, &flags.to_be_bytes());
    if let Some(query) = query {
        put(&mut bytes, HEADER, query.question.bytes);
    }
    Ok(bytes)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}

/// The OPT record of an answer. Encoded as an ordinary record, because simple-dns places the
/// extended code in the flags (RFC 6891 section 6.1.3).
fn opt(client: Edns, code: Code) -> ResourceRecord<'static> {
    let ttl = (code as u32 >> 4) << 24 | client.dnssec_ok;
    let data = OPT { opt_codes: Vec::new(), udp_packet_size: UDP_BYTES, version: 0 };
    ResourceRecord::new(Name::new_with_labels(&[]), CLASS::IN, ttl, RData::OPT(data))
}

#[cfg(test)]
mod tests;
