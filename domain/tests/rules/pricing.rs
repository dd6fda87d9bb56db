//! Prices worked out by hand: `golden/pricing.txt` against the domain. The file's head explains its language.

use std::collections::BTreeSet;
use std::fmt::Write;

use scrip_domain::condition::Condition;
use scrip_domain::coupon::{Benefit, Definition, Scope, Stacking, Step, StepOff, Validity};
use scrip_domain::points::RedeemLimit;
use scrip_domain::pricing::{
    Attributes, Basket, Candidate, Line, Offer, PercentBase, Quote, Rounding, Rules, best, price_within,
};
use scrip_domain::time::{LocalTime, Weekday, WeeklyHours};
use scrip_domain::{CouponId, Rejection, TemplateId, Timestamp};
use serde_json::Value;
use uuid::Uuid;

const GOLDEN: &str = include_str!("golden/pricing.txt");

/// What the file says of one case.
struct Case {
    title: String,
    /// Where it begins in the file.
    line: usize,
    basket: Basket,
    coupons: Vec<Coupon>,
    rules: Rules,
    points: i64,
    balance: i64,
    expected: Vec<String>,
}

struct Coupon {
    name: String,
    template: u128,
    definition: Definition,
    refused: Option<Rejection>,
    valid_until: Timestamp,
}

impl Coupon {
    fn id(&self) -> CouponId {
        CouponId(id_of(&self.name))
    }

    fn offer(&self) -> Offer<'_> {
        Offer {
            coupon_id: self.id(),
            template_id: TemplateId(Uuid::from_u128(self.template)),
            definition: &self.definition,
            refused: self.refused.clone(),
        }
    }
}

/// Names sort as their ids do.
fn id_of(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

fn name_of(id: CouponId) -> String {
    id.0.as_bytes().iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

#[test]
fn prices_are_what_was_worked_out_by_hand() {
    let cases: Vec<Case> = blocks().map(|(line, block)| Case::read(line, block)).collect();
    let mut wrong = String::new();
    for case in &cases {
        let (expected, priced) = (case.expected.join("\n"), case.priced().join("\n"));
        if expected != priced {
            let _ =
                writeln!(wrong, "\nline {}: {}\n--- by hand\n{expected}\n+++ priced\n{priced}", case.line, case.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases.len() >= 150, "only {} cases", cases.len());
}

#[test]
fn the_cases_cover_every_benefit_every_refusal_and_every_limit() {
    let cases: Vec<Case> = blocks().map(|(line, block)| Case::read(line, block)).collect();
    let text: BTreeSet<&str> =
        cases.iter().flat_map(|case| &case.expected).flat_map(|line| line.split_whitespace()).collect();
    let kinds: BTreeSet<&str> =
        cases.iter().flat_map(|case| &case.coupons).map(|coupon| coupon.definition.benefit.kind()).collect();
    assert_eq!(kinds, BTreeSet::from(Benefit::KINDS));
    let refusals = [
        Rejection::MemberLevel { allowed: Vec::new() },
        Rejection::CouponOutsideHours,
        Rejection::CouponOutOfScope,
        Rejection::CouponQuantity { min_quantity: 0, eligible_quantity: 0 },
        Rejection::CouponBelowThreshold { min_amount: 0, eligible_amount: 0 },
        Rejection::CouponConditionUnmet,
        Rejection::CouponConditionFailed { cause: String::new() },
        Rejection::CouponProductMissing,
        Rejection::CouponNotStackable { with: CouponId(Uuid::nil()) },
        Rejection::TooManyCoupons { most: 0 },
        Rejection::CouponWithoutEffect,
        Rejection::OrderTooLarge { most: 0 },
    ];
    let codes = refusals.iter().map(Rejection::code);
    let missing: Vec<&str> =
        codes.chain(RedeemLimit::ALL.map(RedeemLimit::as_str)).filter(|word| !text.contains(word)).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

/// The order of lines and of coupons is the caller's, and means nothing.
#[test]
fn every_case_costs_the_same_in_any_order() {
    for (line, block) in blocks() {
        let case = Case::read(line, block);
        let mut turned = Case::read(line, block);
        turned.basket.lines.reverse();
        turned.coupons.reverse();
        assert_eq!(sorted(turned.priced()), sorted(case.priced()), "{}", case.title);
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// The blocks between empty lines that are not comments, with the numbers of their first lines.
fn blocks() -> impl Iterator<Item = (usize, &'static str)> {
    let mut number = 1;
    GOLDEN.split("\n\n").filter_map(move |block| {
        let first = number;
        number += block.matches('\n').count() + 2;
        let lines = block.lines().take_while(|line| line.starts_with('#')).count();
        let rest = block.splitn(lines + 1, '\n').nth(lines).unwrap_or_default();
        (!rest.trim().is_empty()).then_some((first + lines, rest))
    })
}

impl Case {
    fn read(line: usize, block: &str) -> Case {
        let mut lines = block.lines();
        let local_time = LocalTime { day: day_of("2026-11-25"), minute: 12 * 60 };
        let (attributes, member_attributes) = (Attributes::new(), Attributes::new());
        let (goods, freight, member_level) = (Vec::new(), 0, None);
        let basket = Basket { lines: goods, freight, member_level, local_time, attributes, member_attributes };
        let title = lines.next().unwrap_or_default().to_owned();
        let (coupons, mut rules, expected) = (Vec::new(), Rules::default(), Vec::new());
        rules.points.earn.enabled = false;
        rules.points.redeem.max_percent = None;
        let mut case = Case { title, line, basket, coupons, rules, points: 0, balance: i64::MAX, expected };
        for text in lines {
            let words: Vec<&str> = text.split_whitespace().collect();
            case.read_line(&words).unwrap_or_else(|| panic!("{}: cannot read `{text}`", case.title));
        }
        case
    }

    fn read_line(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["goods", ref lines @ ..] => {
                for line in lines {
                    self.basket.lines.push(line_of(line)?);
                }
            }
            ["freight", amount] => self.basket.freight = amount.parse().ok()?,
            ["level", level] => self.basket.member_level = Some(level.into()),
            ["when", date, time] => self.basket.local_time = LocalTime { day: day_of(date), minute: minute_of(time)? },
            ["order", ref pairs @ ..] => self.basket.attributes = attributes_of(pairs)?,
            ["member", ref pairs @ ..] => self.basket.member_attributes = attributes_of(pairs)?,
            ["coupon", name, ref words @ ..] => {
                let (definition, refused, template, valid_until) = definition_of(words)?;
                let template = template.unwrap_or(1_000 + self.coupons.len() as u128);
                self.coupons.push(Coupon { name: name.into(), template, definition, refused, valid_until });
            }
            ["rule", ref words @ ..] => self.read_rule(words)?,
            ["points", points] => self.points = points.parse().ok()?,
            ["points", points, "of", balance] => {
                (self.points, self.balance) = (points.parse().ok()?, balance.parse().ok()?);
            }
            ["pay" | "line" | "takes" | "skips" | "redeems" | "earns" | "best" | "refuses", ..] => {
                let line = words.join(" ");
                check_sum(&line);
                self.expected.push(line);
            }
            _ => return None,
        }
        Some(())
    }

    fn read_rule(&mut self, words: &[&str]) -> Option<()> {
        let (points, orders) = (&mut self.rules.points, &mut self.rules.orders);
        match *words {
            ["max_coupons", most] => orders.max_coupons_per_order = most.parse().ok()?,
            ["max_total_percent", percent] => orders.max_total_percent = percent.parse().ok()?,
            ["max_total_amount", most] => orders.max_total_amount = Some(most.parse().ok()?),
            ["points_with_coupons", "no"] => orders.points_with_coupons = false,
            ["one_coupon_per_line"] => orders.one_coupon_per_line = true,
            ["percent_of", base] => {
                orders.percent_base = PercentBase::ALL.into_iter().find(|one| one.as_str() == base)?
            }
            ["rounding", name] => orders.rounding = Rounding::ALL.into_iter().find(|one| one.as_str() == name)?,
            ["points", "off"] => points.enabled = false,
            ["redeem", "off"] => points.redeem.enabled = false,
            ["redeem", ratio, "for", base] => {
                (points.redeem.ratio, points.redeem.base) = (ratio.parse().ok()?, base.parse().ok()?);
            }
            ["max_points", most] => points.redeem.max_points_per_order = Some(most.parse().ok()?),
            ["max_percent", percent] => points.redeem.max_percent = Some(percent.parse().ok()?),
            ["earn", "off"] => points.earn.enabled = false,
            ["earn", ratio, "for", base] => {
                points.earn.enabled = true;
                (points.earn.ratio, points.earn.base) = (ratio.parse().ok()?, base.parse().ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    /// What the domain makes of it, in the words of the file and in the order of its expectations.
    fn priced(&self) -> Vec<String> {
        let offers: Vec<Offer> = self.coupons.iter().map(Coupon::offer).collect();
        let quote = match price_within(&self.basket, &offers, self.points, self.balance, &self.rules) {
            Ok(quote) => quote,
            Err(refusal) => return vec![format!("refuses {}", refusal.code())],
        };
        let mut lines = told(&quote);
        if self.expected.iter().any(|line| line.starts_with("best")) {
            lines.push(self.best());
        }
        // Only what the case is about; what it leaves out is told by other cases and by the laws.
        let topic = |line: &str| if line.starts_with("skips") { "takes" } else { first_word(line) }.to_owned();
        let wanted: BTreeSet<String> = self.expected.iter().map(|line| topic(line)).collect();
        lines.retain(|line| wanted.contains(&topic(line)));
        let place = |line: &String| self.expected.iter().position(|expected| same_subject(expected, line));
        lines.sort_by_key(|line| place(line).unwrap_or(usize::MAX));
        lines
    }

    fn best(&self) -> String {
        let candidates: Vec<Candidate> = self
            .coupons
            .iter()
            .map(|coupon| Candidate { offer: coupon.offer(), valid_until: coupon.valid_until })
            .collect();
        let found = best(&self.basket, &candidates, &self.rules).expect("a small order");
        let mut names: Vec<String> = found.coupon_ids.iter().map(|id| name_of(*id)).collect();
        names.sort();
        let proved = if found.exhaustive { "" } else { " perhaps" };
        format!(
            "best {} takes {}{proved}",
            if names.is_empty() { "nothing".into() } else { names.join(" ") },
            found.discount
        )
    }
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// Whether two lines tell of the same: the whole price, or the same line or coupon.
fn same_subject(one: &str, two: &str) -> bool {
    let subject = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        match words[..] {
            ["line" | "takes" | "skips", name] => format!("{} {name}", words[0]),
            _ => words.first().copied().unwrap_or_default().to_owned(),
        }
    };
    subject(one) == subject(two)
}

fn told(quote: &Quote) -> Vec<String> {
    let term = |amount: i64, what: &str| if amount == 0 { String::new() } else { format!(" - {amount}{what}") };
    let mut lines = Vec::new();
    let freight = if quote.freight == 0 { String::new() } else { format!(" + {} freight", quote.freight) };
    lines.push(format!(
        "pay {}{freight}{}{}{} = {}",
        quote.original_amount,
        term(quote.coupon_discount, " coupons"),
        term(quote.freight_discount, " shipping"),
        term(quote.points_discount, " points"),
        quote.pay_amount
    ));
    assert_eq!(quote.total_discount, quote.coupon_discount + quote.freight_discount + quote.points_discount);
    for line in &quote.lines {
        let (coupons, points) = (term(line.coupon_discount, ""), term(line.points_discount, " points"));
        let spent = if line.points_spent == 0 { String::new() } else { format!(" spends {}", line.points_spent) };
        let earns = if line.points_to_earn == 0 { String::new() } else { format!(" earns {}", line.points_to_earn) };
        lines.push(format!(
            "line {} {}{coupons}{points} = {}{spent}{earns}",
            line.item_id, line.amount, line.pay_amount
        ));
        let by_coupons: i64 = line.coupons.iter().map(|(_, share)| share).sum();
        assert_eq!(by_coupons, line.coupon_discount, "the shares of the coupons of line {}", line.item_id);
    }
    for coupon in &quote.coupons {
        let unlock = coupon.unlock_amount.map(|amount| format!(" unlock {amount}")).unwrap_or_default();
        let name = name_of(coupon.coupon_id);
        lines.push(match &coupon.refusal {
            None => format!("takes {name} {}{unlock}", coupon.discount),
            Some(Rejection::CouponNotStackable { with }) => {
                format!("skips {name} COUPON_NOT_STACKABLE with {}", name_of(*with))
            }
            Some(refusal) => format!("skips {name} {}{unlock}", refusal.code()),
        });
    }
    let limit = quote.points_limited_by.map(|limit| format!(" by {}", limit.as_str())).unwrap_or_default();
    lines.push(format!("redeems {} of {}{limit}", quote.points_effective, quote.points_requested));
    lines.push(format!("earns {}", quote.points_to_earn));
    lines
}

/// The arithmetic that the file shows must be right in itself.
fn check_sum(line: &str) {
    let Some((sum, result)) = line.split_once(" = ") else { return };
    let mut total = 0;
    let mut sign = 1;
    for word in sum.split_whitespace().skip(if line.starts_with("line") { 2 } else { 1 }) {
        match word {
            "+" => sign = 1,
            "-" => sign = -1,
            word => total += sign * word.parse::<i64>().unwrap_or(0),
        }
    }
    let result: i64 = first_word(result).parse().expect("a result");
    assert_eq!(total, result, "the sum in `{line}`");
}

/// `item:unit_price x quantity`, then `@product`, `$sku`, `#category,category`, `%points_ratio`.
fn line_of(text: &str) -> Option<Line> {
    let marks = ['@', '$', '#', '%'];
    let (head, mut rest) = text.split_at(text.find(marks).unwrap_or(text.len()));
    let (item_id, amount) = head.split_once(':')?;
    let (unit_price, quantity) = amount.split_once('x').unwrap_or((amount, "1"));
    let mut line = Line {
        item_id: item_id.into(),
        product_id: item_id.into(),
        sku_id: None,
        category_ids: Vec::new(),
        unit_price: unit_price.parse().ok()?,
        quantity: quantity.parse().ok()?,
        points_ratio: 100,
    };
    while let Some(mark) = rest.chars().next() {
        let value = &rest[1..];
        let (value, next) = value.split_at(value.find(marks).unwrap_or(value.len()));
        match mark {
            '@' => line.product_id = value.into(),
            '$' => line.sku_id = Some(value.into()),
            '#' => line.category_ids = list(value),
            _ => line.points_ratio = value.parse().ok()?,
        }
        rest = next;
    }
    Some(line)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn attributes_of(pairs: &[&str]) -> Option<Attributes> {
    let value = |text: &str| {
        text.parse::<i64>().map(Value::from).or(text.parse::<bool>().map(Value::from)).unwrap_or(Value::from(text))
    };
    pairs.iter().map(|pair| pair.split_once('=').map(|(name, text)| (name.to_owned(), value(text)))).collect()
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn day_of(date: &str) -> i32 {
    let part = |range: std::ops::Range<usize>| date[range].parse::<i32>().expect("a date");
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn minute_of(time: &str) -> Option<u16> {
    let (hour, minute) = time.split_once(':')?;
    Some(hour.parse::<u16>().ok()? * 60 + minute.parse::<u16>().ok()?)
}

/// `12.5` in basis points.
fn basis_points(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = format!("{part:0<2}");
    Some(whole.parse::<u16>().ok()? * 100 + part.parse::<u16>().ok()?)
}

type Read = (Definition, Option<Rejection>, Option<u128>, Timestamp);

fn definition_of(words: &[&str]) -> Option<Read> {
    // A condition takes the rest of the line.
    let end = words.iter().position(|word| *word == "if").unwrap_or(words.len());
    let (words, condition) = words.split_at(end);
    let (kind, mut words) = words.split_first()?;
    let mut next = || -> Option<&str> {
        let (word, rest) = words.split_first()?;
        words = rest;
        Some(word)
    };
    let mut benefit = match *kind {
        "amount" => Benefit::AmountOff { amount: next()?.parse().ok()? },
        "percent" => Benefit::PercentOff { basis_points: basis_points(next()?)?, max_amount: None },
        "exchange" => {
            let mut parts = next()?.split('$').map(str::to_owned);
            Benefit::Exchange { product_id: parts.next()?, sku_id: parts.next() }
        }
        "shipping" => Benefit::FreeShipping { max_amount: None },
        "buy" => {
            let (buy_quantity, _, get_quantity) = (next()?.parse().ok()?, next()?, next()?.parse().ok()?);
            Benefit::BuyXGetY { buy_quantity, get_quantity, basis_points: 10_000, max_sets: None }
        }
        "tiers" => {
            let step = |text: &str| {
                let (min_amount, off) = text.split_once(':')?;
                let off = match off.strip_suffix('%') {
                    Some(percent) => StepOff::BasisPoints(basis_points(percent)?),
                    None => StepOff::Amount(off.parse().ok()?),
                };
                Some(Step { min_amount: min_amount.parse().ok()?, off })
            };
            let steps = next()?.split(',').map(step).collect::<Option<Vec<Step>>>()?;
            Benefit::Tiered { steps, max_amount: None }
        }
        "price" => Benefit::FixedPrice { price: next()?.parse().ok()?, max_quantity: None },
        _ => return None,
    };
    let validity = Validity::days(30);
    let mut definition = Definition::new("golden", benefit.clone(), validity);
    let (mut refused, mut template, mut valid_until) = (None, None, Timestamp(1_000));
    let mut scope = Scope::default();
    while let Some(word) = next() {
        match word {
            "max" | "sets" | "units" | "at" => limit(&mut benefit, word, next()?)?,
            "min" => definition.min_order_amount = next()?.parse().ok()?,
            "items" => definition.min_quantity = next()?.parse().ok()?,
            "keep" => definition.min_pay_amount = next()?.parse().ok()?,
            "only" => scope.products = list(next()?),
            "in" => scope.categories = list(next()?),
            "not" => scope.excluded_products = list(next()?),
            "notin" => scope.excluded_categories = list(next()?),
            "priority" => definition.priority = next()?.parse().ok()?,
            "stack" => definition.stacking = Stacking::Stackable,
            "exclusive" => definition.stacking = Stacking::Exclusive,
            "group" => definition.stacking_group = Some(next()?.into()),
            "levels" => definition.member_levels = list(next()?),
            "hours" => {
                let days = next()?.split(',').filter(|day| *day != "daily");
                let weekday = |name: &str| Weekday::ALL.into_iter().find(|day| day.as_str() == name);
                let weekdays = days.map(weekday).collect::<Option<Vec<Weekday>>>()?;
                let (from, to) = next()?.split_once('-')?;
                let (from_minute, to_minute) = (minute_of(from)?, minute_of(to)?);
                definition.usable_hours.push(WeeklyHours { weekdays, from_minute, to_minute });
            }
            "except" => definition.excluded_dates.push(day_of(next()?)),
            "of" => template = Some(next()?.parse().ok()?),
            "until" => valid_until = Timestamp(next()?.parse().ok()?),
            "expired" => refused = Some(Rejection::CouponExpired { valid_until: Timestamp(0) }),
            "used" => refused = Some(Rejection::CouponUsed { order_id: None }),
            _ => return None,
        }
    }
    definition.benefit = benefit;
    definition.scope = scope;
    if let Some((_, expression)) = condition.split_first() {
        let source = expression.join(" ");
        definition.condition = Some(Condition::compile(&source).unwrap_or_else(|error| panic!("{source}: {error:?}")));
    }
    Some((definition, refused, template, valid_until))
}

fn limit(benefit: &mut Benefit, word: &str, value: &str) -> Option<()> {
    match (benefit, word) {
        (Benefit::PercentOff { max_amount, .. }, "max")
        | (Benefit::FreeShipping { max_amount }, "max")
        | (Benefit::Tiered { max_amount, .. }, "max") => *max_amount = Some(value.parse().ok()?),
        (Benefit::BuyXGetY { max_sets, .. }, "sets") => *max_sets = Some(value.parse().ok()?),
        (Benefit::BuyXGetY { basis_points: part, .. }, "at") => *part = basis_points(value)?,
        (Benefit::FixedPrice { max_quantity, .. }, "units") => *max_quantity = Some(value.parse().ok()?),
        _ => return None,
    }
    Some(())
}
