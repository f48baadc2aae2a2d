//! A small deterministic mutator, so that the bodies see more than the seeds also where libFuzzer is not at hand.

/// xorshift64*: reproducible everywhere, good enough to choose mutations.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same sequence on every machine.
    pub fn new(seed: u64) -> Self {
        // splitmix64 spreads neighbouring seeds; the state must not be zero.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bytes that parsers treat in a special way.
const EDGES: &[u8] = b"\x00\x01\x7f\x80\xfe\xff\"'\\/{}[]:,.$%@#?*|-+0 \t\r\n";
/// Inputs grow to at most this many bytes: 64 KiB.
const MOST: usize = 64 * 1024;

/// One to five random changes to a random seed.
pub fn mutated(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut Rng| corpus.get(rng.below(corpus.len())).cloned().unwrap_or_default();
    let mut data = pick(rng);
    for _ in 0..=rng.below(5) {
        let at = rng.below(data.len() + 1);
        let longest = 1 << rng.below(8);
        let length = rng.below(1 + (data.len() - at).min(longest));
        match rng.below(9) {
            0 if at < data.len() => data[at] ^= 1 << rng.below(8),
            1 if at < data.len() => data[at] = rng.next() as u8,
            2 if at < data.len() => data[at] = EDGES[rng.below(EDGES.len())],
            3 => data.insert(at, EDGES[rng.below(EDGES.len())]),
            4 => drop(data.drain(at..at + length)),
            5 => {
                let copied = data[at..at + length].to_vec();
                let to = rng.below(data.len() + 1);
                data.splice(to..to, copied);
            }
            6 => {
                let other = pick(rng);
                let from = rng.below(other.len() + 1);
                let length = rng.below(1 + (other.len() - from).min(64));
                data.splice(at..at, other[from..from + length].iter().copied());
            }
            7 => {
                // The head of one seed with the tail of another.
                let other = pick(rng);
                let from = rng.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => {
                // A digit becomes a number at the edge of its type.
                let edges = ["0", "-1", "255", "256", "65535", "65536", "4294967296", "9223372036854775808", "1e400"];
                if let Some(digit) = data.iter().skip(at).position(u8::is_ascii_digit) {
                    data.splice(at + digit..=at + digit, edges[rng.below(edges.len())].bytes());
                }
            }
        }
    }
    data.truncate(MOST);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let corpus = vec![b"{\"a\":1}".to_vec(), b"xyz".to_vec()];
        let run = |seed| -> Vec<Vec<u8>> {
            let mut rng = Rng::new(seed);
            (0..200).map(|_| mutated(&mut rng, &corpus)).collect()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let distinct: std::collections::HashSet<_> = run(7).into_iter().collect();
        assert!(distinct.len() > 150, "{} of 200 inputs differ", distinct.len());
    }

    #[test]
    fn an_empty_corpus_is_one_empty_seed() {
        assert!(mutated(&mut Rng::new(1), &[]).len() < 200);
    }
}
