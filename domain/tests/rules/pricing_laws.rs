//! Laws of prices that hold for any basket and any coupons.

use proptest::prelude::*;
use scrip_domain::condition::Condition;
use scrip_domain::coupon::{Benefit, Definition, Scope, Stacking, Step, StepOff, Validity};
use scrip_domain::pricing::{
    Attributes, Basket, Candidate, Line, Offer, PercentBase, Quote, Rounding, Rules, best, price, price_each, refund,
};
use scrip_domain::time::LocalTime;
use scrip_domain::{CouponId, Rejection, TemplateId, Timestamp};
use uuid::Uuid;

use crate::generate::Random;

struct Case {
    basket: Basket,
    definitions: Vec<Definition>,
    points: i64,
    rules: Rules,
}

impl Case {
    fn new(seed: u64) -> Case {
        let random = &mut Random::new(seed);
        let rules = rules(random);
        let basket = basket(random);
        let definitions = (0..random.between(0, 6)).map(|_| definition(random)).collect();
        let points = if random.percent(50) { random.between(0, 5_000) } else { 0 };
        Case { basket, definitions, points, rules }
    }

    fn offers(&self) -> Vec<Offer<'_>> {
        let offer = |(index, definition)| Offer {
            coupon_id: CouponId(Uuid::from_u128(index as u128 + 1)),
            // Some coupons are of one template, in different versions.
            template_id: TemplateId(Uuid::from_u128(index as u128 / 2)),
            definition,
            refused: None,
        };
        self.definitions.iter().enumerate().map(offer).collect()
    }

    fn price(&self) -> Quote {
        price(&self.basket, &self.offers(), self.points, &self.rules).expect("a small order")
    }
}

fn names(random: &mut Random, all: &[&str], percent: i64) -> Vec<String> {
    all.iter().filter(|_| random.percent(percent)).map(|name| (*name).to_owned()).collect()
}

const PRODUCTS: [&str; 4] = ["p1", "p2", "p3", "p4"];
const CATEGORIES: [&str; 3] = ["c1", "c2", "c3"];

pub fn basket(random: &mut Random) -> Basket {
    let line = |index: i64, random: &mut Random| Line {
        item_id: format!("i{index}"),
        product_id: (*random.pick(&PRODUCTS).expect("products")).to_owned(),
        sku_id: None,
        category_ids: names(random, &CATEGORIES, 40),
        unit_price: if random.percent(10) { random.between(0, 3) } else { random.between(0, 20_000) },
        quantity: random.between(1, 7),
        points_ratio: random.between(0, 200) as u16,
    };
    Basket {
        lines: (0..random.between(1, 6)).map(|index| line(index, random)).collect(),
        freight: random.between(0, 2) * 400,
        member_level: None,
        local_time: LocalTime { day: 0, minute: 0 },
        attributes: Attributes::new(),
        member_attributes: Attributes::new(),
    }
}

pub fn definition(random: &mut Random) -> Definition {
    let capped = |random: &mut Random| random.percent(40).then(|| random.between(1, 5_000));
    let benefit = match random.between(0, 6) {
        0 => Benefit::AmountOff { amount: random.between(1, 8_000) },
        1 => Benefit::PercentOff { basis_points: random.between(1, 9_999) as u16, max_amount: capped(random) },
        2 => Benefit::Exchange { product_id: (*random.pick(&PRODUCTS).expect("products")).to_owned(), sku_id: None },
        3 => Benefit::FreeShipping { max_amount: capped(random) },
        4 => Benefit::BuyXGetY {
            buy_quantity: random.between(1, 3),
            get_quantity: random.between(1, 2),
            basis_points: random.between(1, 10_000) as u16,
            max_sets: random.percent(30).then(|| random.between(1, 2)),
        },
        5 => {
            let first = random.between(0, 10_000);
            let off = |random: &mut Random| match random.percent(50) {
                true => StepOff::Amount(random.between(1, 5_000)),
                false => StepOff::BasisPoints(random.between(1, 10_000) as u16),
            };
            let steps = vec![
                Step { min_amount: first, off: off(random) },
                Step { min_amount: first + random.between(1, 20_000), off: off(random) },
            ];
            Benefit::Tiered { steps, max_amount: capped(random) }
        }
        _ => Benefit::FixedPrice {
            price: random.between(0, 10_000),
            max_quantity: random.percent(50).then(|| random.between(1, 5)),
        },
    };
    let rarely = |random: &mut Random, most: i64| if random.percent(30) { random.between(0, most) } else { 0 };
    Definition {
        min_order_amount: rarely(random, 30_000),
        min_quantity: rarely(random, 6),
        min_pay_amount: rarely(random, 10_000),
        scope: Scope {
            products: names(random, &PRODUCTS, 20),
            categories: names(random, &CATEGORIES, 20),
            excluded_products: names(random, &PRODUCTS, 10),
            excluded_categories: names(random, &CATEGORIES, 10),
        },
        priority: random.between(0, 2) as i32,
        stacking: match random.between(0, 9) {
            0 => Stacking::Exclusive,
            1..=3 => Stacking::SameTypeExclusive,
            _ => Stacking::Stackable,
        },
        stacking_group: random.percent(20).then(|| (*random.pick(&["g1", "g2"]).expect("groups")).to_owned()),
        ..Definition::new("n", benefit, Validity::days(1))
    }
}

pub fn rules(random: &mut Random) -> Rules {
    let mut rules = Rules::default();
    rules.orders.max_coupons_per_order = random.between(1, 6) as u32;
    if random.percent(30) {
        rules.orders.max_total_percent = random.between(1, 100) as u8;
    }
    rules.orders.max_total_amount = random.percent(20).then(|| random.between(0, 20_000));
    rules.orders.one_coupon_per_line = random.percent(20);
    rules.orders.percent_base = *random.pick(&PercentBase::ALL).expect("bases");
    rules.orders.rounding = *random.pick(&Rounding::ALL).expect("roundings");
    rules.orders.points_with_coupons = random.percent(80);
    rules.points.redeem.ratio = random.between(1, 20);
    rules.points.redeem.base = random.between(1, 20);
    rules.points.redeem.max_percent = random.percent(50).then(|| random.between(1, 100) as u8);
    rules
}

/// The lines a scope admits, by its definition and not by way of the domain.
fn is_eligible(scope: &Scope, line: &Line) -> bool {
    let in_any = |names: &[String]| line.category_ids.iter().any(|id| names.contains(id));
    (scope.products.is_empty() || scope.products.contains(&line.product_id))
        && (scope.categories.is_empty() || in_any(&scope.categories))
        && !scope.excluded_products.contains(&line.product_id)
        && !in_any(&scope.excluded_categories)
}

fn amount(line: &Line) -> i64 {
    line.unit_price * line.quantity
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    /// Q1: nothing is below zero, no discount above what it is of, and everything adds up to the minor unit and the point.
    #[test]
    fn every_price_adds_up(seed: u64) {
        let case = Case::new(seed);
        let quote = case.price();
        let goods: i64 = case.basket.lines.iter().map(amount).sum();
        prop_assert_eq!(quote.original_amount, goods);
        prop_assert_eq!(quote.total_discount, quote.coupon_discount + quote.freight_discount + quote.points_discount);
        prop_assert_eq!(quote.pay_amount, goods + quote.freight - quote.total_discount);
        prop_assert!(quote.pay_amount >= 0);
        prop_assert!((0..=quote.freight).contains(&quote.freight_discount));
        let sum = |of: fn(&scrip_domain::pricing::LineQuote) -> i64| quote.lines.iter().map(of).sum::<i64>();
        prop_assert_eq!(sum(|line| line.amount), goods);
        prop_assert_eq!(sum(|line| line.coupon_discount), quote.coupon_discount);
        prop_assert_eq!(sum(|line| line.points_discount), quote.points_discount);
        prop_assert_eq!(sum(|line| line.points_spent), quote.points_effective);
        prop_assert_eq!(sum(|line| line.points_to_earn), quote.points_to_earn);
        prop_assert_eq!(sum(|line| line.pay_amount), goods - quote.coupon_discount - quote.points_discount);
        for (line, bought) in quote.lines.iter().zip(&case.basket.lines) {
            prop_assert_eq!((&line.item_id, line.amount), (&bought.item_id, amount(bought)));
            prop_assert_eq!(line.pay_amount, line.amount - line.coupon_discount - line.points_discount);
            prop_assert!(line.pay_amount >= 0 && line.coupon_discount >= 0 && line.points_discount >= 0);
            prop_assert!(line.points_spent >= 0 && line.points_to_earn >= 0);
            prop_assert_eq!(line.coupons.iter().map(|(_, share)| share).sum::<i64>(), line.coupon_discount);
        }
        let discounts: i64 = quote.coupons.iter().map(|coupon| coupon.discount).sum();
        prop_assert_eq!(discounts, quote.coupon_discount + quote.freight_discount);
        prop_assert!(quote.points_effective <= quote.points_requested);
        prop_assert_eq!(quote.points_effective == quote.points_requested, quote.points_limited_by.is_none());
    }

    /// Q2: a coupon takes off eligible lines only, no more than they cost, and only when its terms are met; the tenant's limits
    /// and what must remain are kept.
    #[test]
    fn every_coupon_keeps_its_terms(seed: u64) {
        let case = Case::new(seed);
        let quote = case.price();
        let (mut applied, mut keep) = (0, 0);
        for (coupon, definition) in quote.coupons.iter().zip(&case.definitions) {
            prop_assert_eq!(coupon.refusal.is_none(), coupon.discount > 0);
            if coupon.refusal.is_some() {
                continue;
            }
            applied += 1;
            keep = keep.max(definition.min_pay_amount);
            let eligible: Vec<&Line> =
                case.basket.lines.iter().filter(|line| is_eligible(&definition.scope, line)).collect();
            let subtotal: i64 = eligible.iter().map(|line| amount(line)).sum();
            prop_assert!(subtotal >= definition.min_order_amount);
            prop_assert!(eligible.iter().map(|line| line.quantity).sum::<i64>() >= definition.min_quantity);
            let shares = quote.lines.iter().flat_map(|line| {
                line.coupons.iter().filter(|(id, _)| *id == coupon.coupon_id).map(|(_, share)| (&line.item_id, *share))
            });
            let mut on_goods = 0;
            for (item, share) in shares {
                prop_assert!(eligible.iter().any(|line| line.item_id == *item), "{item} is not eligible");
                on_goods += share;
            }
            if definition.benefit.kind() == "FREE_SHIPPING" {
                prop_assert_eq!(on_goods, 0);
            } else {
                prop_assert_eq!(on_goods, coupon.discount);
                prop_assert!(on_goods <= subtotal);
            }
        }
        let goods = quote.original_amount;
        prop_assert!(applied <= case.rules.orders.max_coupons_per_order);
        prop_assert!(case.rules.orders.max_total_amount.is_none_or(|most| quote.coupon_discount <= most));
        let mut groups: Vec<&String> = quote
            .coupons
            .iter()
            .zip(&case.definitions)
            .filter(|(coupon, _)| coupon.refusal.is_none())
            .filter_map(|(_, definition)| definition.stacking_group.as_ref())
            .collect();
        let applied_of_groups = groups.len();
        groups.sort_unstable();
        groups.dedup();
        prop_assert_eq!(groups.len(), applied_of_groups, "one of each group");
        if case.rules.orders.one_coupon_per_line {
            prop_assert!(quote.lines.iter().all(|line| line.coupons.len() <= 1));
        }
        prop_assert!(quote.coupon_discount * 100 <= goods * i64::from(case.rules.orders.max_total_percent));
        if applied > 0 {
            prop_assert!(goods - quote.coupon_discount - quote.points_discount >= keep);
        }
        if let (Some(percent), true) = (case.rules.points.redeem.max_percent, quote.points_discount > 0) {
            prop_assert!((quote.coupon_discount + quote.points_discount) * 100 <= goods * i64::from(percent));
        }
    }

    /// Q3: coupons that do not apply change nothing: without them the price is the same.
    #[test]
    fn a_coupon_that_does_not_apply_leaves_no_trace(seed: u64) {
        let case = Case::new(seed);
        let quote = case.price();
        let refused = |offer: &Offer| quote.coupons.iter().any(|one| one.coupon_id == offer.coupon_id && one.refusal.is_some());
        let offers: Vec<Offer> = case.offers().into_iter().filter(|offer| !refused(offer)).collect();
        let without = price(&case.basket, &offers, case.points, &case.rules).expect("a small order");
        let coupons = quote.coupons.iter().filter(|coupon| coupon.refusal.is_none()).cloned().collect();
        prop_assert_eq!(without, Quote { coupons, ..quote });
    }

    /// Q4: the order in which lines and coupons are named means nothing.
    #[test]
    fn order_means_nothing(seed: u64, turn: usize) {
        let case = Case::new(seed);
        let quote = case.price();
        let mut basket = case.basket.clone();
        let mut offers = case.offers();
        let lines = basket.lines.len();
        basket.lines.rotate_left(turn % lines);
        basket.lines.reverse();
        offers.reverse();
        let mut other = price(&basket, &offers, case.points, &case.rules).expect("a small order");
        other.coupons.reverse();
        other.lines.reverse();
        other.lines.rotate_right(turn % lines);
        prop_assert_eq!(other, quote);
    }

    /// Q5: the freight changes nothing about the goods.
    #[test]
    fn freight_is_apart(seed: u64, freight in 0..5_000i64) {
        let case = Case::new(seed);
        let quote = case.price();
        let offers: Vec<Offer> =
            case.offers().into_iter().filter(|offer| offer.definition.benefit.kind() != "FREE_SHIPPING").collect();
        let price_with = |freight| {
            price(&Basket { freight, ..case.basket.clone() }, &offers, case.points, &case.rules).expect("a small order")
        };
        let (with, without) = (price_with(freight), price_with(0));
        prop_assert_eq!(with.pay_amount, without.pay_amount + freight);
        prop_assert_eq!(with.lines, without.lines);
        prop_assert_eq!(quote.freight, case.basket.freight);
    }

    /// Q6: refunds of all units, in any parts, give back exactly what was paid, spent and earned.
    #[test]
    fn refunds_add_up(seed: u64, cuts: Vec<u8>) {
        let quote = Case::new(seed).price();
        for line in &quote.lines {
            let (mut refunded, mut amount, mut points, mut earned) = (0, 0, 0, 0);
            for cut in cuts.iter().chain(std::iter::repeat(&1)) {
                let quantity = i64::from(*cut % 3).min(line.quantity - refunded);
                if refunded == line.quantity {
                    break;
                }
                let part = refund::line(line, refunded, quantity);
                prop_assert!(part.amount >= 0 && part.points_returned >= 0 && part.points_clawed_back >= 0);
                refunded += quantity;
                amount += part.amount;
                points += part.points_returned;
                earned += part.points_clawed_back;
            }
            prop_assert_eq!((amount, points, earned), (line.pay_amount, line.points_spent, line.points_to_earn));
        }
    }

    /// Q7: what unlocks a coupon is exact: with so much more it passes the threshold, with a minor unit less it does not.
    #[test]
    fn what_unlocks_is_exact(seed: u64) {
        let case = Case::new(seed);
        for (index, (offer, alone)) in
            case.offers().iter().zip(price_each(&case.basket, &case.offers(), &case.rules).expect("a small order")).enumerate()
        {
            let Some(unlock) = alone.unlock_amount else { continue };
            prop_assert!(unlock > 0);
            let scope = &case.definitions[index].scope;
            let place = case.basket.lines.iter().position(|line| is_eligible(scope, line));
            let place = place.expect("a coupon that more spend would unlock has eligible goods");
            let more = |amount: i64| {
                let mut basket = case.basket.clone();
                let mut line = basket.lines[place].clone();
                (line.item_id, line.unit_price, line.quantity) = ("more".into(), amount, 1);
                basket.lines.push(line);
                price_each(&basket, std::slice::from_ref(offer), &case.rules).expect("a small order").remove(0)
            };
            let below = |quote: &scrip_domain::pricing::CouponQuote| {
                matches!(quote.refusal, Some(Rejection::CouponBelowThreshold { .. }))
            };
            match alone.refusal {
                Some(_) => {
                    prop_assert!(below(&more(unlock - 1)));
                    // A step may lie beyond the threshold.
                    prop_assert!(!below(&more(unlock)) || more(unlock).unlock_amount.is_some_and(|next| next < unlock + 50_000));
                }
                None => prop_assert_ne!(more(unlock).unlock_amount, Some(1)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// Q8: the best combination takes as much off as the best of all subsets, and is one that applies as a whole.
    #[test]
    fn the_best_combination_is_the_best(seed: u64) {
        let case = Case::new(seed);
        let offers = case.offers();
        let discount = |subset: &[Offer]| {
            let quote = price(&case.basket, subset, 0, &case.rules).expect("a small order");
            (quote.coupons.iter().all(|coupon| coupon.refusal.is_none()), quote.total_discount)
        };
        let subset = |mask: u32| -> Vec<Offer> {
            offers.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, offer)| offer.clone()).collect()
        };
        let most = (0..1u32 << offers.len()).map(|mask| discount(&subset(mask))).filter(|(whole, _)| *whole).map(|(_, sum)| sum).max();
        let candidates: Vec<Candidate> =
            offers.iter().map(|offer| Candidate { offer: offer.clone(), valid_until: Timestamp(0) }).collect();
        let found = best(&case.basket, &candidates, &case.rules).expect("a small order");
        prop_assert!(found.exhaustive);
        prop_assert_eq!(Some(found.discount), most);
        let chosen: Vec<Offer> = offers.iter().filter(|offer| found.coupon_ids.contains(&offer.coupon_id)).cloned().collect();
        prop_assert_eq!(chosen.len(), found.coupon_ids.len());
        prop_assert_eq!(discount(&chosen), (true, found.discount));
        prop_assert_eq!(found.alone, price_each(&case.basket, &offers, &case.rules).expect("a small order"));
    }

    /// Q9: no coupon takes more off in a combination than alone, which the search for the best relies on.
    #[test]
    fn no_coupon_is_worth_more_in_company(seed: u64) {
        let case = Case::new(seed);
        let alone = price_each(&case.basket, &case.offers(), &case.rules).expect("a small order");
        for (together, alone) in case.price().coupons.iter().zip(alone) {
            prop_assert!(together.discount <= alone.discount, "{together:?} against {alone:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3_000, ..ProptestConfig::default() })]

    /// Q10: whatever is written as a condition is taken or refused with a place in it; what is taken can be asked of any order,
    /// and answers the same when it comes from a store.
    #[test]
    fn every_text_is_a_condition_or_told_why_not(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..24),
        noise in "[ -~]{0,3}|[\\PC]{0,2}",
    ) {
        let source = words.join(" ") + &noise;
        match Condition::compile(&source) {
            Ok(condition) => {
                let mut definition =
                    Definition::new("n", Benefit::AmountOff { amount: 1 }, Validity::days(1));
                definition.condition = Some(condition);
                let stored = serde_json::to_string(&definition).expect("plain data");
                let read: Definition = serde_json::from_str(&stored).expect("what was written");
                let basket = basket(&mut Random::new(3));
                let ask = |definition: &Definition| {
                    let id = Uuid::nil();
                    let offer = Offer { coupon_id: CouponId(id), template_id: TemplateId(id), definition, refused: None };
                    price_each(&basket, &[offer], &Rules::default()).expect("a small order")
                };
                prop_assert_eq!(ask(&read), ask(&definition));
            }
            Err(error) => {
                prop_assert!((1..=source.chars().count() + 1).contains(&error.position), "{}: {:?}", source, error);
                prop_assert!(!error.message.is_empty() && !error.remedy.is_empty());
            }
        }
    }
}

const WORDS: &[&str] = &[
    "order",
    ".",
    "amount",
    "member",
    "level",
    "eligible",
    "lines",
    "attributes",
    "x",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "==",
    ">",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "/",
    "%",
    "?",
    ":",
    ",",
    "in",
    "true",
    "null",
    "1",
    "0",
    "1.5",
    "9223372036854775807",
    "'a'",
    "\"b\"",
    "r'c'",
    "b'd'",
    "1u",
    "has",
    "size",
    "exists",
    "map",
    "filter",
    "all",
    "order.amount > 1",
    "member.level == 'G'",
    "order.lines.exists(l, l.quantity > 1)",
    "has(order.attributes.x)",
    "order.products[0] == 'p1'",
    "\n",
    "//",
];

/// Twenty coupons that all go together: proved in far fewer steps than there are combinations; forty of them are too many to
/// prove, and then that is said.
#[test]
fn the_search_is_bounded_and_says_so() {
    let random = &mut Random::new(7);
    let basket = Basket { lines: (0..20).flat_map(|_| basket(random).lines).take(20).collect(), ..basket(random) };
    let basket = Basket {
        lines: basket
            .lines
            .into_iter()
            .enumerate()
            .map(|(index, line)| Line { item_id: format!("i{index}"), ..line })
            .collect(),
        ..basket
    };
    let definition = |amount| Definition {
        stacking: Stacking::Stackable,
        ..Definition::new("n", Benefit::AmountOff { amount }, Validity::days(1))
    };
    let find = |definitions: &[Definition]| {
        let candidates: Vec<Candidate> = definitions
            .iter()
            .enumerate()
            .map(|(index, definition)| {
                let id = Uuid::from_u128(index as u128);
                let offer = Offer { coupon_id: CouponId(id), template_id: TemplateId(id), definition, refused: None };
                Candidate { offer, valid_until: Timestamp(0) }
            })
            .collect();
        best(&basket, &candidates, &Rules::default()).expect("a small order")
    };
    let different: Vec<Definition> = (1..=20).map(|amount| definition(amount * 10)).collect();
    let found = find(&different);
    assert!(found.exhaustive);
    assert_eq!((found.discount, found.coupon_ids.len()), (200 + 190 + 180 + 170 + 160, 5));
    let many: Vec<Definition> = (1..=40).map(|amount| definition(amount * 10)).collect();
    let found = find(&many);
    assert!(!found.exhaustive);
    assert_eq!(found.discount, 400 + 390 + 380 + 370 + 360);
}

/// peers 5.1, rounding (erpnext#58042, statamic-cargo PR 168, vendure#2995): 10.00 off three equal lines, which are then
/// returned one by one, in each of the six orders, and unit by unit.
#[test]
fn three_equal_lines_returned_in_any_order_give_back_what_was_paid() {
    let line = |item: &str| Line {
        item_id: item.into(),
        product_id: item.into(),
        sku_id: None,
        category_ids: Vec::new(),
        unit_price: 167,
        quantity: 3,
        points_ratio: 100,
    };
    let basket = Basket { lines: ["a", "b", "c"].map(line).into(), ..basket(&mut Random::new(1)) };
    let definition = Definition::new("n", Benefit::AmountOff { amount: 1_000 }, Validity::days(1));
    let id = Uuid::nil();
    let offer = Offer { coupon_id: CouponId(id), template_id: TemplateId(id), definition: &definition, refused: None };
    let quote = price(&basket, &[offer], 200, &Rules::default()).expect("a small order");
    let shares: Vec<i64> = quote.lines.iter().map(|line| line.coupon_discount).collect();
    assert_eq!(shares, [334, 333, 333]);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let whole: i64 = order.iter().map(|index| refund::line(&quote.lines[*index], 0, 3).amount).sum();
        assert_eq!(whole, quote.pay_amount - quote.freight);
        let units = (0..3).flat_map(|unit| order.map(|index| refund::line(&quote.lines[index], unit, 1)));
        let (amount, points) = units.fold((0, 0), |sum, part| (sum.0 + part.amount, sum.1 + part.points_returned));
        assert_eq!((amount, points), (quote.pay_amount - quote.freight, quote.points_effective));
    }
}
