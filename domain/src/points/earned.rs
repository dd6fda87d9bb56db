//! What orders have earned an account in a day, a week and a month of the tenant's calendar: what the rule's limits are
//! about ([`super::Earn::room`]).
//!
//! One day is kept, that of the latest grant, and a count for each of its periods. A grant of a later day begins the counts of
//! the periods that are over anew. A day before it, from an import or a clock that was put right, counts in the periods that
//! have begun: so no order of arrival gives a limit twice.
//!
//! Grants of orders count, by whatever campaign; what check-ins, tasks and operators grant does not. A refund gives nothing of
//! a limit back, or buying and returning would make room for what the limit is to keep out.

use crate::time::{CapPeriod, Day};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earned {
    /// Of the latest grant; 0 before the first.
    pub day: Day,
    /// Granted in its day, week and month: for each [`CapPeriod`] in its order.
    pub points: [i64; CapPeriod::ALL.len()],
}

impl Earned {
    /// As it stands on `day`, or on its own day when that is later.
    pub fn on(self, day: Day) -> Earned {
        let day = day.max(self.day);
        let is_over = |period: CapPeriod| period.start(day) != period.start(self.day);
        let points = CapPeriod::ALL.map(|period| if is_over(period) { 0 } else { self.points[period as usize] });
        Earned { day, points }
    }

    /// With `points` more, granted on its day.
    pub fn plus(self, points: i64) -> Earned {
        Earned { points: self.points.map(|counted| counted.saturating_add(points)), ..self }
    }

    /// What two accounts have earned together, as it stands on the later of their days.
    pub fn with(self, other: Earned) -> Earned {
        let (own, other) = (self.on(other.day), other.on(self.day));
        let points =
            CapPeriod::ALL.map(|period| own.points[period as usize].saturating_add(other.points[period as usize]));
        Earned { day: own.day, points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-02-27 is a Friday, 2026-03-02 a Monday.
    const FRIDAY: Day = Day(20_511);
    const SUNDAY: Day = Day(20_513);
    const MONDAY: Day = Day(20_514);

    #[test]
    fn each_period_begins_by_itself_and_none_goes_back() {
        let earned = Earned::default().on(FRIDAY).plus(10);
        assert_eq!((earned.day, earned.points), (FRIDAY, [10, 10, 10]));
        // Sunday is in March: the month is another, the week is not.
        let earned = earned.on(SUNDAY).plus(5);
        assert_eq!((earned.day, earned.points), (SUNDAY, [5, 15, 5]));
        // Late: it counts in what has begun.
        let earned = earned.on(FRIDAY).plus(1);
        assert_eq!((earned.day, earned.points), (SUNDAY, [6, 16, 6]));
        let earned = earned.on(MONDAY);
        assert_eq!((earned.day, earned.points), (MONDAY, [0, 0, 6]));
        assert_eq!(earned.on(Day(MONDAY.0 + 31)).points, [0, 0, 0]);
    }

    #[test]
    fn two_accounts_add_what_is_of_the_same_period() {
        let friday = Earned::default().on(FRIDAY).plus(10);
        let sunday = Earned::default().on(SUNDAY).plus(3);
        for both in [friday.with(sunday), sunday.with(friday)] {
            assert_eq!((both.day, both.points), (SUNDAY, [3, 13, 3]));
        }
        assert_eq!(friday.with(friday).points, [20, 20, 20]);
        assert_eq!(friday.with(Earned::default()), friday);
        assert_eq!(Earned::default().with(friday), friday);
    }
}
