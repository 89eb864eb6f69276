//! A bundle of trusted certificates (PEM) as bytes in, bytes out: the certificates of `[ca]` are a
//! block between two marks at its end. A program of the distribution that makes the bundle again
//! drops the marks and keeps the certificates, since it reads them from their source files.

use super::super::etc_files;

const BEGIN: &str = "# banger ca: replaced at each start, from [ca] of the host\n";
const END: &str = "# banger ca: end\n";
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const PEM_END: &[u8] = b"-----END CERTIFICATE-----";

/// The base64 text of each certificate in `pem`, without line ends, and its lines as a range.
fn certificates(pem: &[u8]) -> impl Iterator<Item = (Vec<u8>, std::ops::Range<usize>)> {
    let mut at = 0;
    let mut lines = pem.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let start = at;
        at += line.len();
        (line.trim_ascii(), start..at)
    });
    std::iter::from_fn(move || {
        let (_, begin) = lines.by_ref().find(|(line, _)| *line == PEM_BEGIN)?;
        let mut body = Vec::new();
        for (line, range) in lines.by_ref() {
            if line == PEM_END {
                return Some((body, begin.start..range.end));
            }
            body.extend_from_slice(line);
        }
        None
    })
}

/// The certificates of `pem` in a form that can be compared.
pub fn bodies(pem: &[u8]) -> Vec<Vec<u8>> {
    certificates(pem).map(|(body, _)| body).collect()
}

/// The bundle without the certificates of an earlier start. Without the marks, each of `earlier`
/// is removed once: the guest may have the same certificate of its own besides.
pub fn without(bundle: &[u8], earlier: &[Vec<u8>]) -> Vec<u8> {
    let rest = etc_files::with_block(bundle, format!("{BEGIN}{END}").as_bytes());
    if rest != bundle {
        return rest;
    }
    let mut earlier = earlier.to_vec();
    let mut kept = Vec::with_capacity(rest.len());
    let mut at = 0;
    for (body, range) in certificates(&rest) {
        let Some(index) = earlier.iter().position(|other| *other == body) else { continue };
        earlier.swap_remove(index);
        kept.extend_from_slice(rest.get(at..range.start).unwrap_or_default());
        at = range.end;
    }
    kept.extend_from_slice(rest.get(at..).unwrap_or_default());
    kept
}

/// The bundle with these certificates as its block.
pub fn with<'a>(bundle: &[u8], added: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let block = [BEGIN, &added.collect::<String>(), END].concat();
    etc_files::with_block(bundle, block.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\nAgAA\nAg==\n-----END CERTIFICATE-----\n";

    #[test]
    fn certificates_are_compared_without_their_line_ends() {
        let wide = "x\r\n-----BEGIN CERTIFICATE-----\r\nAgAAAg==\r\n-----END CERTIFICATE-----";
        assert_eq!(bodies(wide.as_bytes()), bodies(TWO.as_bytes()));
        assert_eq!(bodies([TWO, ONE].concat().as_bytes()), [b"AgAAAg==".as_slice(), b"AQ=="]);
        assert!(bodies(b"-----BEGIN CERTIFICATE-----\nAQ==\n").is_empty(), "no end");
    }

    #[test]
    fn a_block_is_removed_with_its_certificates_only() {
        let own = format!("# own\n{ONE}");
        let earlier = bodies([ONE, TWO].concat().as_bytes());
        let bundle = with(own.as_bytes(), [ONE, TWO].into_iter());
        assert_eq!(bundle, format!("{own}{BEGIN}{ONE}{TWO}{END}").into_bytes());
        assert_eq!(without(&bundle, &earlier), own.as_bytes());
        assert_eq!(without(own.as_bytes(), &[]), own.as_bytes());
    }

    #[test]
    fn a_bundle_that_was_made_again_loses_each_certificate_once() {
        let earlier = bodies([ONE, TWO].concat().as_bytes());
        let made_again = format!("{ONE}# own\n{TWO}{ONE}# end\n");
        let rest = without(made_again.as_bytes(), &earlier);
        assert_eq!(String::from_utf8(rest).unwrap(), format!("# own\n{ONE}# end\n"));
    }
}
