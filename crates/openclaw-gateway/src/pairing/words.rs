//! Three words for a pairing request, derived from what would be approved. The device that asks and the screen that
//! approves compute them on their own; when they agree, the owner is looking at the right request.

use openclaw_protocol::{PublicKey, Role, ScopeSet};
use sha2::{Digest as _, Sha256};

/// 1024 common words, 3 to 8 letters, no two of which differ in a single letter. Three of them carry 30 bits; a
/// request lives five minutes, so a look-alike cannot be ground out in time by trying keys.
const WORDS: &str = include_str!("words.txt");
const BITS: u32 = 10;

/// SHA-256 over the device key, the role and the scopes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    /// Only rights count: a name or platform that changes between two tries does not change the words.
    pub fn of(key: PublicKey, role: Role, scopes: ScopeSet) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"openclaw pairing words 1\0");
        for part in [key.to_wire().as_str(), role.as_str(), scopes.names().join(",").as_str()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        Self(hash.finalize().into())
    }
}

/// The three words of a request, to be shown in this order.
pub fn three_words(digest: &RequestDigest) -> [&'static str; 3] {
    let [a, b, c, d, ..] = digest.0;
    let bits = u32::from_be_bytes([a, b, c, d]);
    [0, 1, 2].map(|position| word(bits >> (32 - BITS * (position + 1)) & ((1 << BITS) - 1)))
}

fn word(index: u32) -> &'static str {
    WORDS.lines().nth(index as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openclaw_protocol::{DeviceKey, Scope};

    use super::*;

    #[test]
    fn the_list_is_full_distinct_and_easy_to_tell_apart() {
        let words: Vec<&str> = WORDS.lines().collect();
        assert_eq!(words.len(), 1 << BITS);
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        for (at, one) in words.iter().enumerate() {
            assert!((3..=8).contains(&one.len()) && one.bytes().all(|b| b.is_ascii_lowercase()), "{one}");
            for other in &words[at + 1..] {
                let near =
                    one.len() == other.len() && one.bytes().zip(other.bytes()).filter(|(a, b)| a != b).count() == 1;
                assert!(!near, "{one} and {other} are one letter apart");
            }
        }
    }

    #[test]
    fn all_thirty_bits_are_used() {
        let words = |head: [u8; 4]| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&head);
            three_words(&RequestDigest(digest))
        };
        let list: Vec<&str> = WORDS.lines().collect();
        assert_eq!(words([0, 0, 0, 0]), [list[0]; 3]);
        assert_eq!(words([0xff, 0xff, 0xff, 0xff]), [list[1023]; 3]);
        assert_eq!(words([0, 0x40, 0x20, 0x0c]), [list[1], list[2], list[3]]);
    }

    #[test]
    fn words_follow_the_rights_asked_for() {
        let (one, other) = (DeviceKey::from_seed(&[1; 32]).public(), DeviceKey::from_seed(&[2; 32]).public());
        let read: ScopeSet = [Scope::Read].into_iter().collect();
        let words = |key, role, scopes| three_words(&RequestDigest::of(key, role, scopes));
        let asked = words(one, Role::Operator, read);
        assert_eq!(asked, words(one, Role::Operator, read));
        assert_ne!(asked, words(other, Role::Operator, read));
        assert_ne!(asked, words(one, Role::Operator, ScopeSet::all()));
        assert_ne!(asked, words(one, Role::Node, read));
    }
}
