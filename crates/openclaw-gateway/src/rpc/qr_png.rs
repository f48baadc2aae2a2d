//! A QR code as a picture, for user interfaces that show what they are sent: one bit per pixel, not compressed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_protocol::Secret;
use qrcode::{EcLevel, QrCode, types::Color};

/// Longest address; the limit of release 2026.9.6.
const MAX_URL_BYTES: usize = 16_384;
/// Pixels of a module, the best first.
const SCALES: [usize; 4] = [4, 3, 2, 1];
/// Light modules around the code, as the standard asks.
const QUIET: usize = 4;

/// `data:image/png;base64,…` of a text; `None` when it does not fit into a code, or the picture into an address.
pub fn data_url(text: &Secret) -> Option<Secret> {
    let code = QrCode::with_error_correction_level(text.expose(), EcLevel::M);
    let code = code.or_else(|_| QrCode::with_error_correction_level(text.expose(), EcLevel::L)).ok()?;
    let (width, modules) = (code.width(), code.to_colors());
    let dark = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < width);
        matches!((inside(x), inside(y)), (Some(x), Some(y)) if modules[y * width + x] == Color::Dark)
    };
    let urls = SCALES.iter().map(|scale| {
        let side = (width + 2 * QUIET) * scale;
        let picture = png(side, |x, y| dark(x / scale, y / scale));
        format!("data:image/png;base64,{}", STANDARD.encode(picture))
    });
    urls.into_iter().find(|url| url.len() <= MAX_URL_BYTES).map(Secret::new)
}

/// A square picture (PNG specification, second edition): grey, one bit, light unless `dark`.
fn png(side: usize, dark: impl Fn(usize, usize) -> bool) -> Vec<u8> {
    let mut rows = Vec::with_capacity(side * (side.div_ceil(8) + 1));
    for y in 0..side {
        // Each row begins with its filter: none.
        rows.push(0);
        rows.extend((0..side).step_by(8).map(|start| {
            (0..8).fold(0, |byte, bit| byte << 1 | u8::from(start + bit >= side || !dark(start + bit, y)))
        }));
    }
    let size = u32::try_from(side).unwrap_or(u32::MAX).to_be_bytes();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut png, b"IHDR", &[&size[..], &size[..], &[1, 0, 0, 0, 0]].concat());
    chunk(&mut png, b"IDAT", &zlib_stored(&rows));
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    let start = png.len();
    png.extend(kind);
    png.extend(data);
    let sum = crc32(&png[start..]);
    png.extend(sum.to_be_bytes());
}

/// A zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4).
fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = data.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    let (a, b) = data.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    stream.extend((b << 16 | a).to_be_bytes());
    stream
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values of the two sums ("123456789", in the catalogue of CRCs, and RFC 1950's algorithm).
    #[test]
    fn sums() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let stream = zlib_stored(b"123456789");
        assert_eq!(stream[..7], [0x78, 0x01, 1, 9, 0, 0xf6, 0xff]);
        assert_eq!(stream[16..], 0x091e_01de_u32.to_be_bytes());
    }

    #[test]
    fn long_texts_get_smaller_modules_and_the_longest_none() {
        let length = |text: usize| data_url(&Secret::new("a".repeat(text))).map(|url| url.expose().len());
        for text in [20, 300, 700, 1200] {
            assert!(length(text).is_some_and(|length| length <= MAX_URL_BYTES), "{text}");
        }
        assert_eq!(length(3_000), None);
    }
}
