//! What is in the head of a picture.

/// Formats the commands return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Png,
    Jpeg,
}

/// Kind, width and height of a PNG or JPEG file.
pub fn describe(bytes: &[u8]) -> Option<(Kind, u32, u32)> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.get(12..16) == Some(b"IHDR") {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        return Some((Kind::Png, number(16)?, number(20)?));
    }
    bytes.starts_with(&[0xff, 0xd8]).then(|| jpeg(bytes)).flatten()
}

/// Walks the segments up to the one that begins a frame.
fn jpeg(bytes: &[u8]) -> Option<(Kind, u32, u32)> {
    let number = |at: usize| Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            at += 1;
            continue;
        }
        match *bytes.get(at + 1)? {
            0xff => at += 1,
            // End of image, start of scan: no frame came before.
            0xd9 | 0xda => return None,
            // Markers without a body.
            0x01 | 0xd0..=0xd8 => at += 2,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((Kind::Jpeg, number(at + 7)?, number(at + 5)?));
            }
            _ => at += 2 + usize::try_from(number(at + 2)?.max(2)).ok()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 2, 0, 0, 0, 1, 0]);
        assert_eq!(describe(&png), Some((Kind::Png, 512, 256)));
        let jpeg = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 9, 9, 0xff, 0xff, 0xc0, 0, 17, 8, 1, 0, 2, 0, 3];
        assert_eq!(describe(&jpeg), Some((Kind::Jpeg, 512, 256)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), kind in 0..3) {
            let start: &[u8] = [&[0xff, 0xd8][..], b"\x89PNG\r\n\x1a\n", b""][kind as usize];
            describe(&[start, &bytes].concat());
        }
    }
}
