//! Protocol versions and their negotiation.

use serde::{Deserialize, Serialize};

/// A protocol version spoken on one socket; frames are shaped by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Protocol {
    V3,
    V4,
}

impl Protocol {
    pub const MIN: Self = Self::V3;
    pub const MAX: Self = Self::V4;

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }

    /// Picks the highest version inside the client's range, or `None` when the range misses {3, 4} or is empty.
    pub fn negotiate(min: u32, max: u32) -> Option<Self> {
        [Self::V4, Self::V3].into_iter().find(|v| min <= v.number() && v.number() <= max)
    }
}

impl From<Protocol> for u32 {
    fn from(version: Protocol) -> u32 {
        version.number()
    }
}

impl TryFrom<u32> for Protocol {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match number {
            3 => Ok(Self::V3),
            4 => Ok(Self::V4),
            other => Err(format!("unknown protocol version {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_table() {
        for (min, max, expected) in [
            (4, 4, Some(Protocol::V4)),
            (3, 3, Some(Protocol::V3)),
            (3, 4, Some(Protocol::V4)),
            (1, 3, Some(Protocol::V3)),
            (1, 99, Some(Protocol::V4)),
            (5, 5, None),
            (1, 2, None),
            (4, 3, None),
        ] {
            assert_eq!(Protocol::negotiate(min, max), expected, "{min}..{max}");
        }
    }
}
