//! The header of an .npy file: a Python dictionary literal with three entries.

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// numpy's type string, such as `<f4`.
    pub(super) descr: String,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
}

/// numpy refuses more than 64 dimensions; no image has more than a few.
const MAX_RANK: usize = 16;

impl Header {
    /// The preamble of a version 1.0 file, padded so that the data start at a multiple of 64 bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let sizes = self.shape.iter().map(|n| format!("{n},")).collect::<Vec<_>>();
        let order = if self.fortran_order { "True" } else { "False" };
        let mut text = format!("{{'descr': '{}', 'fortran_order': {order}, 'shape': ({}), }}", self.descr, sizes.join(" "));
        let padding = 64 - (10 + text.len() + 1) % 64;
        text.extend(std::iter::repeat_n(' ', padding % 64));
        text.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    /// Parses the dictionary; `Err` says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut scanner = Scanner { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        scanner.expect('{')?;
        while !scanner.accept('}') {
            let key = scanner.string()?;
            scanner.expect(':')?;
            match key {
                "descr" if scanner.peek() == Some('[') => return Err("a structured type".into()),
                "descr" => descr = Some(scanner.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(scanner.boolean()?),
                "shape" => shape = Some(scanner.tuple()?),
                other => return Err(format!("the unknown entry '{other}'")),
            }
            if !scanner.accept(',') {
                scanner.expect('}')?;
                break;
            }
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Self { descr, fortran_order, shape }),
            _ => Err("a dictionary that lacks one of them".into()),
        }
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn accept(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        there
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.accept(wanted) { Ok(()) } else { Err(format!("no '{wanted}' before '{}'", self.excerpt())) }
    }

    fn excerpt(&self) -> String {
        self.rest.chars().take(20).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = match self.peek() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => return Err(format!("no string before '{}'", self.excerpt())),
        };
        let (inside, after) = self.rest[1..].split_once(quote).ok_or("an open string")?;
        self.rest = after;
        Ok(inside)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(after) = self.rest.strip_prefix(word) {
                self.rest = after;
                return Ok(value);
            }
        }
        Err(format!("no truth value before '{}'", self.excerpt()))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let mut sizes = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            self.peek();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, after) = self.rest.split_at(end);
            sizes.push(digits.parse().map_err(|_| format!("no size before '{}'", self.excerpt()))?);
            // Python 2 wrote long integers with this suffix.
            self.rest = after.strip_prefix('L').unwrap_or(after);
            if sizes.len() > MAX_RANK {
                return Err(format!("more than {MAX_RANK} dimensions"));
            }
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_numpy_has_written_over_the_years() {
        for (text, descr, fortran_order, shape) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }     \n", "<f4", false, vec![2, 3]),
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (7,), }\n", "|u1", true, vec![7]),
            ("{\"shape\":(),\"descr\":\">f8\",\"fortran_order\":False}", ">f8", false, vec![]),
            ("{'shape': (3L, 4L), 'fortran_order': False, 'descr': '<i8'}\n", "<i8", false, vec![3, 4]),
        ] {
            assert_eq!(Header::parse(text).unwrap(), Header { descr: descr.into(), fortran_order, shape }, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("", "no '{'"),
            ("{'descr': [('a', '<f4')], ", "structured"),
            ("{'descr': '<f4', 'fortran_order': Maybe", "no truth value"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "no size"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }", "no size"),
            ("{'descr': '<f4', 'fortran_order': False}", "lacks one"),
            ("{'descr': '<f4', 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}", "more than 16"),
            ("{'descr: ", "open string"),
        ] {
            let error = Header::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn data_start_at_a_multiple_of_64() {
        for rank in 0..12 {
            let header = Header { descr: "<f4".into(), fortran_order: false, shape: vec![12_345; rank] };
            let bytes = header.encode();
            assert_eq!(bytes.len() % 64, 0);
            assert_eq!(Header::parse(std::str::from_utf8(&bytes[10..]).unwrap()).unwrap(), header);
        }
    }
}
