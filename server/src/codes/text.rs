//! The texts of codes: how they are compared, how they look, and how hard they are to guess.

use std::fmt;

/// Digits and capitals without those that are mistaken for each other: 0 and O, 1, I and L.
pub const DEFAULT_ALPHABET: &str = "23456789ABCDEFGHJKMNPQRSTUVWXYZ";
/// Places drawn at random, when nothing else is asked for: 69 bits with the default alphabet.
pub const DEFAULT_LENGTH: usize = 14;
/// The most of them, the check character not counted; numbers up to 36^12 fit half of them.
pub const MAX_LENGTH: usize = 24;
/// The longest text of a code.
pub const MAX_CHARACTERS: usize = 64;
/// Random places stand in groups of so many.
const GROUP: usize = 4;

/// How often a second a tenant's codes can be guessed at, over time: beyond it, nobody gets an answer ([`super::guard`]).
pub const GUESSES_PER_SECOND: u32 = 10;
const GUESSING_SECONDS: f64 = 30.0 * 86_400.0;
/// Codes that a month of guessing may be expected to find, at most.
const ACCEPTED_HITS: f64 = 1e-6;

/// What a code is compared by: capitals and digits only, look-alikes as one. `None` for what cannot be a code.
pub fn normalise(text: &str) -> Option<String> {
    let mut normal = String::with_capacity(text.len().min(MAX_CHARACTERS));
    for character in text.chars() {
        if matches!(character, ' ' | '-' | '_' | '.') {
            continue;
        }
        let character = fold(character.to_ascii_uppercase());
        if !character.is_ascii_uppercase() && !character.is_ascii_digit() {
            return None;
        }
        normal.push(character);
        if normal.len() > MAX_CHARACTERS {
            return None;
        }
    }
    (!normal.is_empty()).then_some(normal)
}

fn fold(character: char) -> char {
    match character {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    }
}

/// How unique codes look: `#` stands for a random place, everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    alphabet: Vec<u8>,
    /// Whether the last random place is a check character over the others.
    check_character: bool,
}

/// Why something is no pattern, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadPattern {
    Text(&'static str),
    Alphabet(&'static str),
}

impl Pattern {
    /// # Errors
    /// What is wrong with the text or the alphabet.
    pub fn new(text: &str, alphabet: &str, check_character: bool) -> Result<Pattern, BadPattern> {
        if text.len() > MAX_CHARACTERS {
            return Err(BadPattern::Text("has more than 64 characters"));
        }
        // The first character is what a spreadsheet takes a formula by.
        if !text.starts_with(|first: char| first == '#' || first.is_ascii_alphanumeric()) {
            return Err(BadPattern::Text("does not begin with #, a letter or a digit"));
        }
        if !text.chars().all(|character| matches!(character, '#' | '-') || character.is_ascii_alphanumeric()) {
            return Err(BadPattern::Text("has characters other than #, -, letters and digits"));
        }
        let pattern = Pattern {
            text: text.to_ascii_uppercase(),
            alphabet: alphabet.to_ascii_uppercase().into_bytes(),
            check_character,
        };
        if !(1..=MAX_LENGTH).contains(&pattern.length()) {
            return Err(BadPattern::Text("has no random place (#), or more than 24 beside the check character"));
        }
        let mut distinct: Vec<char> = pattern.alphabet.iter().map(|byte| fold(char::from(*byte))).collect();
        if !distinct.iter().all(char::is_ascii_alphanumeric) || distinct.len() < 2 {
            return Err(BadPattern::Alphabet("has characters other than letters and digits, or fewer than two"));
        }
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != pattern.alphabet.len() {
            return Err(BadPattern::Alphabet("has a character twice, or two that look alike (0 and O; 1, I and L)"));
        }
        Ok(pattern)
    }

    /// The pattern of so many random places in groups, behind a prefix.
    pub fn of_length(prefix: &str, length: usize, check_character: bool) -> String {
        let places = length + usize::from(check_character);
        let mut text = prefix.to_owned();
        for place in 0..places {
            if (place > 0 && place.is_multiple_of(GROUP)) || (place == 0 && !prefix.is_empty()) {
                text.push('-');
            }
            text.push('#');
        }
        text
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn alphabet(&self) -> &str {
        std::str::from_utf8(&self.alphabet).unwrap_or_default()
    }

    /// Random places, without the check character.
    pub fn length(&self) -> usize {
        let places = self.text.bytes().filter(|byte| *byte == b'#').count();
        places.saturating_sub(self.check_character.into())
    }

    /// How many characters a place is drawn from.
    pub fn base(&self) -> u64 {
        self.alphabet.len() as u64
    }

    /// Bits of randomness in a code.
    pub fn bits(&self) -> f64 {
        self.length() as f64 * (self.base() as f64).log2()
    }

    /// The code with these digits in its random places.
    pub fn write(&self, digits: &[u64], out: &mut String) {
        let character = |digit: u64| char::from(self.alphabet[digit as usize]);
        let mut next = digits.iter();
        for byte in self.text.bytes() {
            match (byte, next.next_if_random(byte)) {
                (b'#', Some(digit)) => out.push(character(*digit)),
                (b'#', None) => out.push(character(check_digit(digits, self.base()))),
                (literal, _) => out.push(char::from(literal)),
            }
        }
    }
}

trait NextIfRandom<'a> {
    fn next_if_random(&mut self, byte: u8) -> Option<&'a u64>;
}

impl<'a, I: Iterator<Item = &'a u64>> NextIfRandom<'a> for I {
    fn next_if_random(&mut self, byte: u8) -> Option<&'a u64> {
        if byte == b'#' { self.next() } else { None }
    }
}

/// Luhn's sum in any base (ISO/IEC 7812-1 has base ten): a shop's form notices one mistyped character, and nearly every pair
/// changed over, before it asks. It is no secret and adds nothing against guessing.
///
/// Luhn adds the digits of a doubled digit up, which tells all digits apart in an even base; in an odd one the rest of the
/// division does.
pub fn check_digit(digits: &[u64], base: u64) -> u64 {
    let sum: u64 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let weighted = if place % 2 == 0 { digit * 2 } else { *digit };
            if base.is_multiple_of(2) { weighted / base + weighted % base } else { weighted % base }
        })
        .sum();
    (base - sum % base) % base
}

/// How many random places `count` codes need so that guessing all month at [`GUESSES_PER_SECOND`] is expected to find no more
/// than a millionth of one: `count * guesses / base^length <= 1e-6` (OWASP OAT-002, token cracking).
pub fn least_length(count: i64, base: u64) -> usize {
    let bits = least_bits(count);
    let length = bits / (base as f64).log2();
    // A whole number of places that falls short by rounding alone is enough.
    (length - 1e-9).ceil().max(1.0) as usize
}

/// The same in bits.
pub fn least_bits(count: i64) -> f64 {
    (count.max(1) as f64 * f64::from(GUESSES_PER_SECOND) * GUESSING_SECONDS / ACCEPTED_HITS).log2()
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (BadPattern::Text(text) | BadPattern::Alphabet(text)) = self;
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_compared_without_case_separators_and_look_alikes() {
        for (written, normal) in
            [("abcd-2345", "ABCD2345"), (" AB CD.23_45 ", "ABCD2345"), ("solo-li1", "S010111"), ("x", "X")]
        {
            assert_eq!(normalise(written).as_deref(), Some(normal), "{written}");
        }
        for bad in ["", "--", "é", "a/b", "a\u{0}b", &"x".repeat(65)] {
            assert_eq!(normalise(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pattern_says_what_is_wrong_with_it() {
        let of = |text: &str, alphabet: &str| Pattern::new(text, alphabet, false).map(|pattern| pattern.length());
        assert_eq!(of("vip-####", "abc"), Ok(4));
        for (text, alphabet) in [
            ("", "ABC"),
            ("VIP", "ABC"),
            ("-####", "ABC"),
            ("=####", "ABC"),
            ("## ##", "ABC"),
            (&"#".repeat(25), "ABC"),
            (&"#".repeat(65), "ABC"),
        ] {
            assert!(matches!(of(text, alphabet), Err(BadPattern::Text(_))), "{text}");
        }
        for alphabet in ["", "A", "AA", "aA", "0O", "1I", "AL1", "A-", "Aé"] {
            assert!(matches!(of("####", alphabet), Err(BadPattern::Alphabet(_))), "{alphabet}");
        }
    }

    #[test]
    fn texts_follow_the_pattern() {
        let pattern = Pattern::new("vip-##-x#", "ABC", false).expect("a pattern");
        let mut text = String::new();
        pattern.write(&[0, 1, 2], &mut text);
        assert_eq!(text, "VIP-AB-XC");
        assert_eq!(Pattern::of_length("VIP", 6, true), "VIP-####-###");
        assert_eq!(Pattern::of_length("", 8, false), "####-####");
    }

    #[test]
    fn the_check_character_notices_one_wrong_character() {
        // ISO/IEC 7812-1's own example: 7992739871 has the check digit 3.
        assert_eq!(check_digit(&[7, 9, 9, 2, 7, 3, 9, 8, 7, 1], 10), 3);
        let digits = [3, 1, 4, 1, 5, 9, 2, 6];
        for base in [31, 32] {
            let right = check_digit(&digits, base);
            for place in 0..digits.len() {
                for other in (0..base).filter(|other| *other != digits[place]) {
                    let mut wrong = digits;
                    wrong[place] = other;
                    assert_ne!(check_digit(&wrong, base), right, "{place} {other} in base {base}");
                }
            }
        }
    }

    #[test]
    fn a_million_codes_need_about_sixty_five_bits() {
        assert!((least_bits(1_000_000) - 64.49).abs() < 0.01);
        assert_eq!(least_length(1_000_000, 31), 14);
        assert_eq!(least_length(1_000_000, 32), 13);
        assert_eq!(least_length(200_000, 31), 13);
        assert_eq!(least_length(1, 10), 14);
        let default =
            Pattern::new(&Pattern::of_length("", DEFAULT_LENGTH, true), DEFAULT_ALPHABET, true).expect("a pattern");
        assert!(default.bits() >= 65.0, "{}", default.bits());
    }
}
