//! Parses a query (RFC 1035 section 4, EDNS(0) of RFC 6891): only the fields that an answer depends
//! on, in one pass, allocating no more than the labels of one name.
//!
//! It does not use simple-dns, which reads the EDNS version from the wrong field, rejects types and
//! classes that it does not know, and allocates memory for as many records as the header announces.

/// Length of a header in bytes.
pub const HEADER: usize = 12;
/// Maximum length of a name in bytes, including label lengths (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// Maximum length of a label in bytes.
const MAX_LABEL: usize = 63;
/// Maximum number of records besides the question; resolvers send an OPT and sometimes a signature.
const MAX_RECORDS: u32 = 8;
/// Type of the OPT record.
const OPT: u16 = 41;
/// Flag "DNSSEC OK" in an OPT (RFC 3225).
pub const DNSSEC_OK: u32 = 0x8000;

/// The header: the first twelve bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Id chosen by the client.
    pub id: u16,
    /// All flags.
    pub flags: u16,
    counts: [u16; 4],
}

impl Header {
    /// Parses a header; `None` = the message is too short.
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes: message, at: 0 };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        Some(Self { id, flags, counts })
    }

    /// Whether the message is a response.
    pub fn is_response(self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Operation: 0 is a query.
    pub fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }
}

/// The question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<'a> {
    /// The encoded question.
    pub bytes: &'a [u8],
    /// Labels of the name, without the root label.
    pub labels: Vec<&'a [u8]>,
    /// Requested type.
    pub kind: u16,
    /// Requested class.
    pub class: u16,
}

/// Content of the client's OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Maximum UDP answer that the client accepts, in bytes.
    pub size: u16,
    /// EDNS version; only 0 exists.
    pub version: u8,
    /// [`DNSSEC_OK`] or 0: the answer repeats it.
    pub dnssec_ok: u32,
}

/// A well-formed query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The question.
    pub question: Question<'a>,
    /// EDNS, if the client uses it.
    pub edns: Option<Edns>,
}

impl<'a> Query<'a> {
    /// Parses the message after its header; `None` = malformed.
    pub fn read(message: &'a [u8], header: Header) -> Option<Self> {
        let [questions, answers, authorities, additional] = header.counts;
        let records = [answers, authorities, additional].map(u32::from).iter().sum::<u32>();
        if questions != 1 || records > MAX_RECORDS {
            return None;
        }
        let mut reader = Reader { bytes: message, at: HEADER };
        let question = reader.question()?;
        let mut edns = None;
        for index in 0..records {
            let found = reader.record()?;
            let Some(found) = found else { continue };
            // At most one, and only in the additional section (RFC 6891 section 6.1.1).
            if edns.is_some() || index < u32::from(answers) + u32::from(authorities) {
                return None;
            }
            edns = Some(found);
        }
        reader.rest().is_empty().then_some(Self { question, edns })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn question(&mut self) -> Option<Question<'a>> {
        let start = self.at;
        let mut labels = Vec::new();
        loop {
            match usize::from(self.u8()?) {
                0 => break,
                // The first name has no earlier name to point to.
                length if length > MAX_LABEL => return None,
                length => labels.push(self.take(length)?),
            }
            if self.at - start >= MAX_NAME {
                return None;
            }
        }
        let (kind, class) = (self.u16()?, self.u16()?);
        let bytes = self.bytes.get(start..self.at)?;
        Some(Question { bytes, labels, kind, class })
    }

    /// Skips a name, which may end in a pointer; returns whether it is the root.
    fn skip_name(&mut self) -> Option<bool> {
        let start = self.at;
        loop {
            match usize::from(self.u8()?) {
                0 => return Some(self.at == start + 1),
                length if length & 0xc0 == 0xc0 => {
                    self.u8()?;
                    return Some(false);
                }
                length if length > MAX_LABEL => return None,
                length => self.take(length)?,
            };
            if self.at - start >= MAX_NAME {
                return None;
            }
        }
    }

    /// Skips a record; returns its content if it is an OPT.
    fn record(&mut self) -> Option<Option<Edns>> {
        let root = self.skip_name()?;
        let (kind, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let data = self.take(length)?;
        if kind != OPT {
            return Some(None);
        }
        let mut options = Reader { bytes: data, at: 0 };
        while !options.rest().is_empty() {
            options.u16()?;
            let length = usize::from(options.u16()?);
            options.take(length)?;
        }
        // RFC 6891 section 6.1.3: extended code, version, flags.
        let [_, version, ..] = ttl.to_be_bytes();
        let edns = Edns { size: class, version, dnssec_ok: ttl & DNSSEC_OK };
        root.then_some(Some(edns))
    }
}
