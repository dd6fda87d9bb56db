//! Exact shares: the largest-remainder method (Hamilton), and rounding, in integers.

use serde::{Deserialize, Serialize};

/// Splits `total` in proportion to `weights`, exactly: each share is its quota rounded down, and the units that remain go to
/// the largest remainders, the earlier of equal ones first. No share exceeds its weight while `total` does not exceed their
/// sum. Needs `0 <= total`, weights of at least 0, and a positive weight when `total` is positive.
pub fn split(total: i64, weights: &[i64]) -> Vec<i64> {
    let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if total == 0 || sum == 0 {
        return vec![0; weights.len()];
    }
    let narrow = i64::try_from(sum).ok();
    let quotas = weights.iter().map(|weight| match (total.checked_mul(*weight), narrow) {
        (Some(product), Some(sum)) => (product / sum, i128::from(product % sum)),
        _ => {
            let product = i128::from(total) * i128::from(*weight);
            ((product / sum) as i64, product % sum)
        }
    });
    let (mut shares, remainders): (Vec<i64>, Vec<i128>) = quotas.unzip();
    let rest = (total - shares.iter().sum::<i64>()) as usize;
    if rest == 0 {
        return shares;
    }
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(remainders[*index]));
    for index in by_remainder.into_iter().take(rest) {
        shares[index] += 1;
    }
    shares
}

/// `value * part / whole`, a half rounded up. Needs `0 <= part <= whole`, `0 < whole` and `0 <= value`, so the result never
/// exceeds `value`.
pub fn part_of(value: i64, part: i64, whole: i64) -> i64 {
    Rounding::HalfUp.part_of(value, part, whole)
}

/// Where a fraction of a minor unit goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rounding {
    /// To the nearest, a half up.
    #[default]
    HalfUp,
    /// To the nearest, a half to the even neighbour.
    HalfEven,
    Down,
}

impl Rounding {
    pub const ALL: [Rounding; 3] = [Rounding::HalfUp, Rounding::HalfEven, Rounding::Down];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Rounding::HalfUp => "HALF_UP",
            Rounding::HalfEven => "HALF_EVEN",
            Rounding::Down => "DOWN",
        }
    }

    /// `value * part / whole`. Needs what [`part_of`] needs; grows with `value`, and never exceeds it.
    pub fn part_of(self, value: i64, part: i64, whole: i64) -> i64 {
        // Most amounts leave room for the product in a machine word, which divides many times faster.
        let (quotient, rest) = match value.checked_mul(part) {
            Some(product) => (product / whole, product % whole),
            None => {
                let (product, whole) = (i128::from(value) * i128::from(part), i128::from(whole));
                ((product / whole) as i64, (product % whole) as i64)
            }
        };
        let up = match self {
            Rounding::HalfUp => rest >= whole - rest,
            Rounding::HalfEven => rest > whole - rest || (rest == whole - rest && quotient % 2 == 1),
            Rounding::Down => false,
        };
        quotient + i64::from(up)
    }
}
