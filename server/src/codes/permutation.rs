//! Unique codes from a counter: a keyed permutation of all codes that a pattern has, in its order of numbers.
//!
//! Distinct numbers give distinct codes by construction, and whoever knows any number of codes but not the key knows nothing of
//! the others. So a batch needs no table of codes already drawn, can go on after a kill, and can be written out once more until
//! what it was made from is destroyed.
//!
//! The permutation is a Feistel network over two halves of the digits, of ten rounds with additions in place of exclusive ors
//! for any base: the construction of FF1 (NIST SP 800-38G, section 5.1) with HMAC-SHA256 as the round function. It is no
//! implementation of FF1, and need not be: nothing is ever decrypted.

use super::key::Keyed;

/// As FF1 has it.
const ROUNDS: u8 = 10;

pub struct Permutation {
    keyed: Keyed,
    base: u64,
    /// Digits of the two halves.
    left: u32,
    right: u32,
}

impl Permutation {
    /// Of all texts of `length` digits in `base`; `length` is at most [`super::text::MAX_LENGTH`].
    pub fn new(keyed: Keyed, base: u64, length: usize) -> Permutation {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let left = length / 2;
        Permutation { keyed, base, left, right: length - left }
    }

    /// How many there are, or the largest number if there are more.
    pub fn size(&self) -> u128 {
        u128::from(self.base).saturating_pow(self.left + self.right)
    }

    /// The digits that the number stands for, most significant first.
    pub fn digits(&self, number: u64) -> Vec<u64> {
        let (left_size, right_size) = (self.base.pow(self.left), self.base.pow(self.right));
        let (mut left, mut right) = (number / right_size % left_size, number % right_size);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                left = self.moved(round, left, right, left_size);
            } else {
                right = self.moved(round, right, left, right_size);
            }
        }
        let mut digits = vec![0; (self.left + self.right) as usize];
        let (high, low) = digits.split_at_mut(self.left as usize);
        self.write(left, high);
        self.write(right, low);
        digits
    }

    /// One half moved on by a function of the other.
    fn moved(&self, round: u8, half: u64, other: u64, size: u64) -> u64 {
        let random = self.keyed.of(&[&[round], &other.to_be_bytes()]);
        let random = u128::from_be_bytes(std::array::from_fn(|place| random[place]));
        // Of 128 bits, so that no remainder is likelier than another by more than 2^-64.
        let step = random % u128::from(size);
        ((u128::from(half) + step) % u128::from(size)) as u64
    }

    fn write(&self, mut half: u64, places: &mut [u64]) {
        for place in places.iter_mut().rev() {
            *place = half % self.base;
            half /= self.base;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::codes::key::CodeKeys;

    fn keyed(nonce: u8) -> Keyed {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("1:{}", "5a".repeat(32))).expect("a file");
        CodeKeys::read(&path).expect("keys").newest().of_batch(&[nonce; 16])
    }

    #[test]
    fn every_code_comes_exactly_once() {
        for (base, length) in [(2, 1), (2, 2), (3, 5), (31, 2), (7, 3)] {
            let permutation = Permutation::new(keyed(1), base, length);
            let size = u64::try_from(permutation.size()).expect("a small one");
            let codes: HashSet<Vec<u64>> = (0..size).map(|number| permutation.digits(number)).collect();
            assert_eq!(codes.len() as u64, size, "base {base}, {length} digits");
            assert!(codes.iter().flatten().all(|digit| *digit < base));
        }
    }

    #[test]
    fn another_batch_gets_other_codes_and_the_same_one_the_same() {
        let of = |nonce| Permutation::new(keyed(nonce), 31, 14);
        assert_eq!(of(1).digits(7), of(1).digits(7));
        assert_ne!(of(1).digits(7), of(2).digits(7));
        assert_eq!(Permutation::new(keyed(1), 36, 24).digits(u64::MAX).len(), 24, "the largest halves fit");
    }

    /// Neighbouring numbers share no more digits than chance would have it: each of 31 with 1/31.
    #[test]
    fn neighbours_do_not_look_alike() {
        let permutation = Permutation::new(keyed(3), 31, 14);
        let codes: Vec<Vec<u64>> = (0..5_000).map(|number| permutation.digits(number)).collect();
        let alike: usize =
            codes.windows(2).map(|pair| pair[0].iter().zip(&pair[1]).filter(|(one, other)| one == other).count()).sum();
        // 5,000 pairs of 14 digits: 2,258 are expected, with a deviation of 47.
        assert!((2_020..2_500).contains(&alike), "{alike}");
        for place in 0..14 {
            let mut seen = [0; 31];
            codes.iter().for_each(|code| seen[code[place] as usize] += 1);
            // 161 are expected of each, with a deviation of 12.5.
            assert!(seen.iter().all(|count| (95..235).contains(count)), "place {place}: {seen:?}");
        }
    }
}
