//! Programs: tenants under another's credentials.

use scrip_domain::tenant::{ApiKey, MAX_PROGRAMS, NewProgram, Program, Scope, Tenant};
use scrip_domain::{Answer, Command, Envelope, IdSeed, KeyId, Outcome, Rejection, TenantId, Timestamp};

use crate::harness::Harness;

const SHOP: TenantId = TenantId(uuid::Uuid::from_u128(1));
const NOW: Timestamp = Timestamp(7);

fn shop() -> Command {
    Command::CreateTenant(Tenant {
        id: SHOP,
        name: "Shop".into(),
        currency: "JPY".into(),
        time_zone: "Asia/Tokyo".into(),
        refund_grace_days: 3,
        created_at: Timestamp(0),
        program: None,
    })
}

fn program(number: u128, code: &str) -> NewProgram {
    let code = code.parse().expect("a code");
    NewProgram { id: id(number), code, name: "Miles".into(), time_zone: None, refund_grace_days: None }
}

fn id(number: u128) -> TenantId {
    TenantId(uuid::Uuid::from_u128(100 + number))
}

fn envelope(tenant: TenantId, command: Command) -> Envelope {
    let seed = IdSeed { unix_ms: 0, random: 0 };
    Envelope { tenant, actor: None, command, idempotency: None, at: NOW, now: NOW, seed }
}

fn create(tenant: TenantId, program: NewProgram) -> Envelope {
    envelope(tenant, Command::CreateProgram(Box::new(program)))
}

fn refusal(answer: &Answer) -> Option<&Rejection> {
    match answer {
        Answer::Refused(rejection) => Some(rejection),
        Answer::Accepted { .. } => None,
    }
}

#[test]
fn a_program_has_its_parents_currency_and_what_else_it_does_not_choose() {
    let mut harness = Harness::default();
    let own = NewProgram { time_zone: Some("UTC".into()), refund_grace_days: Some(0), ..program(2, "STARS") };
    let batch = [envelope(SHOP, shop()), create(SHOP, program(1, "MILES")), create(SHOP, own)];
    let answers: Vec<Answer> = batch.iter().flat_map(|one| harness.execute(std::slice::from_ref(one))).collect();
    let made = |answer: &Answer| match answer {
        Answer::Accepted { outcome: Outcome::Tenant(made), .. } => (**made).clone(),
        other => panic!("{other:?}"),
    };
    let (miles, stars) = (made(&answers[1]), made(&answers[2]));
    let of_shop = |code: &str| Some(Program { parent_id: SHOP, code: code.parse().expect("a code") });
    let expected = Tenant {
        id: id(1),
        name: "Miles".into(),
        currency: "JPY".into(),
        time_zone: "Asia/Tokyo".into(),
        refund_grace_days: 3,
        created_at: NOW,
        program: of_shop("MILES"),
    };
    assert_eq!(miles, expected);
    let expected =
        Tenant { id: id(2), time_zone: "UTC".into(), refund_grace_days: 0, program: of_shop("STARS"), ..expected };
    assert_eq!(stars, expected);
}

#[test]
fn a_code_is_taken_once_within_a_batch_and_after_it_but_by_each_tenant() {
    let mut harness = Harness::default();
    harness.execute(&[envelope(SHOP, shop())]);
    let twice = harness.execute(&[create(SHOP, program(1, "MILES")), create(SHOP, program(2, "MILES"))]);
    assert_eq!((refusal(&twice[0]), refusal(&twice[1])), (None, Some(&Rejection::ProgramExists)));
    let again = harness.execute(&[create(SHOP, program(3, "MILES"))]);
    assert_eq!(refusal(&again[0]), Some(&Rejection::ProgramExists));
    let other = TenantId(uuid::Uuid::from_u128(2));
    let Command::CreateTenant(row) = shop() else { unreachable!() };
    harness.execute(&[envelope(other, Command::CreateTenant(Tenant { id: other, ..row }))]);
    assert_eq!(refusal(&harness.execute(&[create(other, program(4, "MILES"))])[0]), None);
}

#[test]
fn a_tenant_has_twenty_programs_at_most_and_a_program_none() {
    let mut harness = Harness::default();
    harness.execute(&[envelope(SHOP, shop())]);
    let most = MAX_PROGRAMS as u128;
    for number in 0..most {
        assert_eq!(refusal(&harness.execute(&[create(SHOP, program(number, &format!("P-{number}")))])[0]), None);
    }
    let beyond = harness.execute(&[create(SHOP, program(most, "ONE-MORE"))]);
    assert_eq!(refusal(&beyond[0]), Some(&Rejection::ProgramLimitReached { most: 20 }));
    // What it is called is told first: a retry without a key learns that it was made.
    let known = harness.execute(&[create(SHOP, program(most, "P-0"))]);
    assert_eq!(refusal(&known[0]), Some(&Rejection::ProgramExists));
    let nested = harness.execute(&[create(id(0), program(most, "NESTED"))]);
    assert_eq!(refusal(&nested[0]), Some(&Rejection::TenantIsProgram));
    let nobody = harness.execute(&[create(id(999), program(most, "X"))]);
    assert_eq!(refusal(&nobody[0]), Some(&Rejection::TenantNotFound));
}

#[test]
fn a_program_has_no_keys_of_its_own() {
    let mut harness = Harness::default();
    harness.execute(&[envelope(SHOP, shop())]);
    harness.execute(&[create(SHOP, program(1, "MILES"))]);
    let key = ApiKey {
        id: KeyId(uuid::Uuid::from_u128(5)),
        tenant_id: id(1),
        name: "k".into(),
        scope: Scope::Service,
        member_id: None,
        expires_at: None,
        revoked_at: None,
        created_at: NOW,
        adjustment_limit: None,
    };
    let answer = harness.execute(&[envelope(id(1), Command::CreateApiKey { key, secret_digest: [0; 32] })]);
    assert_eq!(refusal(&answer[0]), Some(&Rejection::TenantIsProgram));
}
