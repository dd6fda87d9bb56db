//! The rules of points and orders: their versions as scenarios (the language is that of [`crate::script`]), and what they give.

use std::sync::Arc;

use scrip_domain::condition::Condition;
use scrip_domain::points::{Campaign, PointsValidity};
use scrip_domain::pricing::{Attributes, Basket, Line, Quote, Rules, price};
use scrip_domain::time::{Calendar, LocalTime, Window};
use scrip_domain::{Day, State, Timestamp};
use serde_json::{Value, json};

use crate::coupons::scenarios;

scenarios! {
    versions_are_numbered_and_an_editor_must_have_seen_the_newest: "
        @0  rules 0 earn 2/100          => version=1 newest=1 from=0
            rules 0 earn 3/100          => POINTS_RULES_VERSION_STALE current=1
            rules 2                     => POINTS_RULES_VERSION_STALE current=1
        @4  rules 1 earn 3/100 from 9   => version=2 newest=2 from=9
            rules 2 earn 4/100          => version=3 newest=3 from=4
            B: rules 0                  => version=1
            U: rules 0                  => TENANT_NOT_FOUND
    "

    rules_hold_from_a_time_to_come: "
        @5  rules 0 from 5-   => DEADLINE_PASSED
            rules 0 from 5    => version=1 from=5
            rules 1 at 3      => version=2 from=3
    "
}

/// Versions 1, 2 and so on that hold from these times.
fn set(times: &[i64]) -> (State, scrip_domain::TenantId) {
    let mut state = State::default();
    let tenant = scrip_domain::TenantId(uuid::Uuid::from_u128(1));
    for (from, version) in times.iter().zip(1..) {
        state.load_rules(tenant, Timestamp(*from), Rules { version, ..Rules::default() }.into());
    }
    (state, tenant)
}

#[test]
fn the_latest_version_whose_time_has_come_holds() {
    let holding = |times: &[i64], at: i64| {
        let (state, tenant) = set(times);
        state.rules_at(tenant, Timestamp(at)).version
    };
    assert_eq!([4, 5, 6, 9, 10, 99].map(|at| holding(&[5, 10], at)), [0, 1, 1, 1, 2, 2]);
    assert_eq!([5, 10].map(|at| holding(&[5, 10, 7], at)), [1, 2], "a version made later may hold for a while before");
    assert_eq!(holding(&[5, 10, 7], 8), 3);
    assert_eq!(holding(&[5, 5, 5], 5), 3, "of the same time, the one made last");
}

/// What an order of one item for 10.00 in these categories earns; 10 without campaigns.
fn earned(rules: &Arc<Rules>, at: i64, categories: &[&str], change: impl FnOnce(&mut Basket)) -> i64 {
    let mut basket = Basket {
        lines: vec![line("a", 1_000, 1)],
        freight: 0,
        member_level: None,
        local_time: LocalTime { day: 0, minute: 0 },
        attributes: Attributes::new(),
        member_attributes: Attributes::new(),
    };
    basket.lines[0].category_ids = categories.iter().map(|one| (*one).into()).collect();
    change(&mut basket);
    price(&basket, &[], 0, &rules.at(Timestamp(at))).expect("a small order").points_to_earn
}

fn line(item: &str, unit_price: i64, quantity: i64) -> Line {
    Line {
        item_id: item.into(),
        product_id: "p".into(),
        sku_id: None,
        category_ids: vec![],
        unit_price,
        quantity,
        points_ratio: 100,
    }
}

fn campaign(percent: u16, window: (i64, i64), categories: &[&str], levels: &[&str]) -> Campaign {
    Campaign {
        name: "c".into(),
        window: Window { starts_at: Some(Timestamp(window.0)), ends_at: Some(Timestamp(window.1)) },
        categories: categories.iter().map(|one| (*one).into()).collect(),
        member_levels: levels.iter().map(|one| (*one).into()).collect(),
        condition: None,
        percent,
    }
}

#[test]
fn the_best_campaign_of_the_time_counts() {
    let mut rules = Rules::default();
    rules.points.campaigns = vec![
        campaign(200, (10, 20), &[], &[]),
        campaign(300, (10, 30), &["books"], &[]),
        campaign(500, (0, 30), &["books"], &["GOLD"]),
        campaign(0, (0, 30), &["gift-cards"], &[]),
    ];
    let rules = Arc::new(rules);
    let earned = |at, categories: &[&str], level: Option<&str>| {
        earned(&rules, at, categories, |basket| basket.member_level = level.map(str::to_owned))
    };
    assert_eq!(earned(9, &["toys"], None), 10);
    assert_eq!(earned(10, &["toys"], None), 20);
    assert_eq!(earned(20, &["toys"], None), 10, "a window is half-open");
    assert_eq!(earned(10, &["toys", "books"], None), 30);
    assert_eq!(earned(10, &["books"], Some("GOLD")), 50);
    assert_eq!(earned(5, &["books"], Some("SILVER")), 10);
    assert_eq!(earned(5, &["gift-cards"], Some("GOLD")), 0, "a campaign may also take points away");
    assert_eq!(earned(10, &["gift-cards"], None), 20, "unless a better one holds");
}

#[test]
fn a_campaign_may_have_a_condition() {
    let mut rules = Rules::default();
    rules.points.campaigns = [
        (200, &[][..], "order.amount >= 1000 && order.weekday == 'MONDAY'"),
        (300, &["books"], "eligible.quantity >= 3"),
        (400, &[], "order.attributes.channel == 'app' && member.attributes.orders == 0"),
    ]
    .map(|(percent, categories, condition)| Campaign {
        condition: Some(Condition::compile(condition).expect("a condition")),
        ..campaign(percent, (0, 30), categories, &[])
    })
    .into();
    let rules = Arc::new(rules);
    let days = |basket: &mut Basket, day| basket.local_time.day = day;
    // The first day of the epoch was a Thursday.
    assert_eq!(earned(&rules, 1, &[], |basket| days(basket, 4)), 20);
    assert_eq!(earned(&rules, 1, &[], |basket| days(basket, 5)), 10);
    assert_eq!(earned(&rules, 1, &[], |basket| (days(basket, 4), basket.lines[0].unit_price = 999).1), 9);
    // Eligible are the goods of the campaign's categories, over all lines; the factor is for these lines alone.
    let with_toys = |books: i64| {
        earned(&rules, 1, &["books"], |basket| {
            basket.lines[0].quantity = books;
            basket.lines.push(line("b", 1_000, 5));
        })
    };
    assert_eq!(with_toys(2), 20 + 50);
    assert_eq!(with_toys(3), 90 + 50);
    let with = |attributes: Value, of_member: Value| {
        earned(&rules, 1, &[], |basket| {
            basket.attributes = attributes.as_object().expect("an object").clone();
            basket.member_attributes = of_member.as_object().expect("an object").clone();
        })
    };
    assert_eq!(with(json!({ "channel": "app" }), json!({ "orders": 0 })), 40);
    assert_eq!(with(json!({ "channel": "app" }), json!({ "orders": 1 })), 10);
    assert_eq!(with(json!({ "channel": "app" }), json!({})), 10, "what cannot be told does not hold");
    assert_eq!(with(json!({ "channel": 7 }), json!({ "orders": 0 })), 10);
}

/// amount, item percent, campaign percent => points, at 3 points for 200. Complaint: nobody knows what points are earned of, before
/// or after rewards (odoo#114004): of what coupons leave of each item, which golden/orders.txt shows line by line.
#[test]
fn earned_points_are_rounded_down_once() {
    let mut rules = Rules::default();
    (rules.points.earn.ratio, rules.points.earn.base) = (3, 200);
    let mut of = |amount, item, percent| {
        rules.points.campaigns = vec![campaign(percent, (0, 30), &[], &[])];
        let rules = Arc::new(rules.clone());
        earned(&rules, 1, &[], |basket| (basket.lines[0].unit_price, basket.lines[0].points_ratio) = (amount, item))
    };
    for (amount, item, percent, points) in [
        (200, 100, 100, 3),
        (199, 100, 100, 2),
        (66, 100, 100, 0),
        (67, 100, 100, 1),
        (200, 50, 100, 1),
        (200, 0, 100, 0),
        (200, 1000, 1000, 300),
        // Two floors would give 1 * 2 = 2.
        (100, 100, 200, 3),
        (133, 50, 200, 1),
        (134, 50, 200, 2),
        (0, 100, 100, 0),
    ] {
        assert_eq!(of(amount, item, percent), points, "{amount} {item} {percent}");
    }
    let mut rules = Rules::default();
    rules.points.earn.enabled = false;
    assert_eq!(earned(&Arc::new(rules), 1, &[], |_| {}), 0);
}

/// limit => what the lines earn, which would be 10, 20 and 31, and whether that is told.
#[test]
fn an_order_earns_no_more_than_the_rule_allows() {
    let basket = Basket {
        lines: vec![line("b", 1_000, 2), line("a", 1_000, 1), line("c", 3_199, 1)],
        freight: 500,
        member_level: None,
        local_time: LocalTime { day: 0, minute: 0 },
        attributes: Attributes::new(),
        member_attributes: Attributes::new(),
    };
    for (most, lines, capped) in [
        (None, [20, 10, 31], false),
        (Some(62), [20, 10, 31], false),
        (Some(61), [20, 10, 31], false),
        (Some(60), [20, 10, 30], true),
        (Some(30), [10, 5, 15], true),
        // 0.66, 0.33 and 1.02 points: the unit that is left goes to the largest remainder.
        (Some(2), [1, 0, 1], true),
        (Some(0), [0, 0, 0], true),
    ] {
        let mut rules = Rules::default();
        rules.points.earn.max_points_per_order = most;
        let quote = price(&basket, &[], 0, &rules).expect("a small order");
        let by_line: Vec<i64> = quote.lines.iter().map(|line| line.points_to_earn).collect();
        assert_eq!((&*by_line, quote.points_to_earn_capped), (&lines[..], capped), "{most:?}");
        assert_eq!(quote.points_to_earn, lines.iter().sum::<i64>());
        let mut turned = basket.clone();
        turned.lines.rotate_left(1);
        let turned = price(&turned, &[], 0, &rules).expect("a small order");
        let by_item = |quote: &Quote, item: &str| {
            quote.lines.iter().find(|line| line.item_id == item).map(|line| line.points_to_earn)
        };
        for item in ["a", "b", "c"] {
            assert_eq!(by_item(&quote, item), by_item(&turned, item), "{most:?}: the order of lines does not matter");
        }
    }
}

#[test]
fn points_live_as_long_as_the_rule_says() {
    let (month_ends, year_ends) = (vec![Timestamp(31), Timestamp(59)], vec![Timestamp(365), Timestamp(730)]);
    let calendar = Calendar { month_ends, year_ends, day: Day(0) };
    let at = Timestamp(7);
    for (validity, expected) in [
        (PointsValidity::Never, None),
        (PointsValidity::Days { days: 2 }, Some(at.plus_days(2))),
        (PointsValidity::EndOfMonth { after_months: 0 }, Some(Timestamp(31))),
        (PointsValidity::EndOfMonth { after_months: 1 }, Some(Timestamp(59))),
        (PointsValidity::EndOfYear { after_years: 0 }, Some(Timestamp(365))),
        (PointsValidity::EndOfYear { after_years: 1 }, Some(Timestamp(730))),
        (PointsValidity::Inactivity { days: 9 }, Some(Timestamp(9_000))),
    ] {
        let day_end = |days: u32| Ok::<_, ()>(Timestamp(i64::from(days) * 1_000));
        assert_eq!(validity.expires_at(at, &calendar, day_end), Ok(expected), "{validity:?}");
    }
    let unknown = PointsValidity::Inactivity { days: 9 }.expires_at(at, &calendar, Err);
    assert_eq!(unknown, Err(9), "a day's end that is not at hand is asked for");
}
