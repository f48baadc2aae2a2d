//! QR codes as text. A terminal's cell is about twice as high as wide, so one cell holds two modules, one above the other.
//!
//! A code is dark on light. Where colours may be used both are set outright, which is right on every theme; without colours
//! the letters' own colour has to do, and whether that is the light or the dark one nobody but the reader knows.

use qrcode::{EcLevel, QrCode, types::Color};

/// Light modules around a code. The standard asks for four; readers do with two on an even ground, and with one at a pinch.
const QUIET: [usize; 3] = [4, 2, 1];

/// How many cells there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub columns: usize,
    pub rows: usize,
}

impl Room {
    /// No bounds: a file, or a pipe.
    pub const ENDLESS: Self = Self { columns: usize::MAX, rows: usize::MAX };
}

/// How modules become characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Colours are set outright: dark on light, or the other way round.
    Colors { inverted: bool },
    /// No colours; `dark_letters` is a terminal with a light ground.
    Plain { dark_letters: bool },
    /// Colours without block characters: two blanks for each module.
    Blanks { inverted: bool },
}

/// A code that fits.
#[derive(Clone, Debug)]
pub struct Drawing {
    modules: Vec<Color>,
    width: usize,
    quiet: usize,
    blanks: bool,
}

impl Drawing {
    /// The best code among several texts, of which the first is the one to be preferred: with the widest margin and the
    /// strongest correction that leave it whole. Returns the index of its text, too.
    pub fn best<'a>(texts: impl IntoIterator<Item = &'a str> + Clone, room: Room, ink: Ink) -> Option<(usize, Self)> {
        let blanks = matches!(ink, Ink::Blanks { .. });
        let decent = |quiet: &&usize| **quiet > 1;
        // A margin of one comes after all else has been tried.
        let rounds = [QUIET.iter().filter(decent).collect::<Vec<_>>(), vec![&1]];
        for margins in rounds {
            for (index, text) in texts.clone().into_iter().enumerate() {
                for quiet in &margins {
                    for level in [EcLevel::M, EcLevel::L] {
                        let Ok(code) = QrCode::with_error_correction_level(text, level) else { continue };
                        let (width, modules) = (code.width(), code.to_colors());
                        let drawing = Self { modules, width, quiet: **quiet, blanks };
                        if drawing.fits(room) {
                            return Some((index, drawing));
                        }
                    }
                }
            }
        }
        None
    }

    /// Rows that a text would need at least.
    pub fn rows_needed(text: &str) -> Option<usize> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        Some((code.width() + 2).div_ceil(2))
    }

    fn side(&self) -> usize {
        self.width + 2 * self.quiet
    }

    pub fn rows(&self) -> usize {
        if self.blanks { self.side() } else { self.side().div_ceil(2) }
    }

    fn columns(&self) -> usize {
        if self.blanks { self.side() * 2 } else { self.side() }
    }

    fn fits(&self, room: Room) -> bool {
        self.rows() <= room.rows && self.columns() <= room.columns
    }

    /// Beyond the code everything is light.
    fn dark(&self, x: usize, y: usize) -> bool {
        let inside = |at: usize| at.checked_sub(self.quiet).filter(|at| *at < self.width);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => self.modules[y * self.width + x] == Color::Dark,
            _ => false,
        }
    }

    /// The lines, each ended.
    pub fn render(&self, ink: Ink) -> String {
        let mut text = String::new();
        let side = self.side();
        if let Ink::Blanks { inverted } = ink {
            for y in 0..side {
                for x in 0..side {
                    text.push_str(if self.dark(x, y) == inverted { "\x1b[47m  " } else { "\x1b[40m  " });
                }
                text.push_str("\x1b[0m\n");
            }
            return text;
        }
        // Letters are drawn for dark modules, or for light ones where letters are the lighter colour.
        let (start, end, letters_are_dark) = match ink {
            Ink::Colors { inverted: false } => ("\x1b[30;47m", "\x1b[0m", true),
            Ink::Colors { inverted: true } => ("\x1b[37;40m", "\x1b[0m", true),
            Ink::Plain { dark_letters } | Ink::Blanks { inverted: dark_letters } => ("", "", dark_letters),
        };
        for y in (0..side).step_by(2) {
            text.push_str(start);
            for x in 0..side {
                // An odd last line has nothing below it; there the ground is as light as the margin.
                let (above, below) = (self.dark(x, y) == letters_are_dark, self.dark(x, y + 1) == letters_are_dark);
                text.push(match (above, below) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            text.push_str(end);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Room = Room { columns: 80, rows: 23 };
    const COLORS: Ink = Ink::Colors { inverted: false };

    /// What a camera sees: every cell is 8 pixels wide and 16 high, on a ground of the terminal's colour.
    fn photograph(text: &str, ground_is_dark: bool) -> Option<String> {
        let letters = if ground_is_dark { 255 } else { 0 };
        let ground = 255 - letters;
        let mut rows: Vec<Vec<[u8; 2]>> = Vec::new();
        for line in text.lines() {
            let (mut ink, mut paper) = (letters, ground);
            let mut cells = Vec::new();
            let mut rest = line;
            while let Some(character) = rest.chars().next() {
                if let Some(escape) = rest.strip_prefix("\x1b[") {
                    let (codes, after) = escape.split_once('m').expect("a colour");
                    for code in codes.split(';') {
                        match code {
                            "0" => (ink, paper) = (letters, ground),
                            "30" => ink = 0,
                            "37" => ink = 255,
                            "40" => paper = 0,
                            "47" => paper = 255,
                            other => panic!("{other}"),
                        }
                    }
                    rest = after;
                    continue;
                }
                cells.push(match character {
                    '█' => [ink, ink],
                    '▀' => [ink, paper],
                    '▄' => [paper, ink],
                    ' ' => [paper, paper],
                    other => panic!("{other:?}"),
                });
                rest = &rest[character.len_utf8()..];
            }
            rows.push(cells);
        }
        let columns = rows.iter().map(Vec::len).max().expect("rows");
        let (width, height) = ((columns + 6) * 8, (rows.len() + 4) * 16);
        let pixel = |x: usize, y: usize| {
            let cell = (x / 8).checked_sub(3).and_then(|x| rows.get((y / 16).checked_sub(2)?)?.get(x));
            cell.map_or(ground, |cell| cell[y % 16 / 8])
        };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
        let grid = image.detect_grids().into_iter().next()?;
        grid.decode().ok().map(|(_, content)| content)
    }

    #[test]
    fn read_back_on_dark_and_light_grounds() {
        let text =
            "eyJ1cmwiOiJ3czovLzE5Mi4xNjguNzcuMTA6MTg3ODkiLCJib290c3RyYXBUb2tlbiI6IkFCQ0RFRkdISUpLTE1OT1BRUlNUVVYifQ";
        for room in [SMALL, Room::ENDLESS] {
            let (_, drawing) = Drawing::best([text], room, COLORS).expect("fits");
            for dark in [true, false] {
                assert_eq!(photograph(&drawing.render(COLORS), dark).as_deref(), Some(text), "{room:?} dark: {dark}");
                let plain = Ink::Plain { dark_letters: !dark };
                assert_eq!(photograph(&drawing.render(plain), dark).as_deref(), Some(text), "plain, dark: {dark}");
            }
        }
        let blanks = Ink::Blanks { inverted: false };
        let (_, drawing) = Drawing::best([text], Room::ENDLESS, blanks).expect("fits");
        // Two blanks wide and one high: as high as wide in pixels.
        assert_eq!(photograph(&drawing.render(blanks), true).as_deref(), Some(text));
    }

    #[test]
    fn what_fits_where() {
        let rows = |chars: usize, room| {
            Drawing::best([&*"a".repeat(chars)], room, COLORS).map(|(_, it)| (it.rows(), it.quiet))
        };
        // ISO/IEC 18004, table 7: byte mode, level L: version 5 holds 106, version 6 134, version 7 154.
        assert_eq!(rows(106, SMALL), Some((23, 4)));
        assert_eq!(rows(134, SMALL), Some((23, 2)));
        assert_eq!(rows(135, SMALL), None);
        assert_eq!(rows(154, Room { columns: 80, rows: 24 }), Some((24, 1)));
        assert_eq!(rows(300, Room { columns: 60, rows: 99 }), None, "too narrow");
        assert_eq!(Drawing::rows_needed(&"a".repeat(135)), Some(24));
        let (index, _) = Drawing::best([&*"a".repeat(400), &"b".repeat(100)], SMALL, COLORS).expect("the second");
        assert_eq!(index, 1);
    }
}
