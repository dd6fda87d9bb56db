//! Coupon codes: batches of them, and the claim by a code.
//!
//! The rules know a code by its [`CodeDigest`] only; its text, and the key that the digest is made with, are the server's.
//! A *shared* code is one text that many members claim with, a *unique* one is claimed once. Both belong to a batch, which is
//! what operators list, switch off, revoke and export.
//!
//! ```text
//!           disable
//! ACTIVE <-----------> DISABLED      both a batch and a single code; a code is claimed with while both are ACTIVE
//!    |       enable       |
//!    +----> REVOKED <-----+          for good
//! ```
//!
//! A code may be assigned to a member, and then nobody else claims with it.
//!
//! Who may guess must learn nothing from a refusal: a code that is unknown, used up, switched off, revoked, another member's or
//! another template's is refused by one rejection, [`Rejection::CodeNotAccepted`]. What the template refuses afterwards (its window,
//! the member's limit, its stock) is told: whoever hears it has a code.

use serde::{Deserialize, Serialize};

use super::claim::issue;
use super::lifecycle::quoted;
use super::{Coupon, CouponSource};
use crate::command::Envelope;
use crate::decide::{Interrupt, Outcome};
use crate::event::EventKind;
use crate::id::{CodeBatchId, CouponId, Ids, MemberId, TemplateId};
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// The first half of an HMAC-SHA256 of a code's normal form: 128 bits, so that no two codes ever share one.
pub type CodeDigest = [u8; 16];

/// The most codes of a batch.
pub const MAX_CODES: i64 = 10_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CodeStatus {
    Active,
    Disabled,
    Revoked,
}

impl CodeStatus {
    pub const ALL: [CodeStatus; 3] = [CodeStatus::Active, CodeStatus::Disabled, CodeStatus::Revoked];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CodeStatus::Active => "ACTIVE",
            CodeStatus::Disabled => "DISABLED",
            CodeStatus::Revoked => "REVOKED",
        }
    }

    pub fn parse(text: &str) -> Option<CodeStatus> {
        CodeStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Where the codes of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CodeKind {
    /// One code for many members.
    Shared,
    /// Many codes made here, each for one claim.
    Unique,
    /// Codes that exist elsewhere already.
    Imported,
}

impl CodeKind {
    pub const ALL: [CodeKind; 3] = [CodeKind::Shared, CodeKind::Unique, CodeKind::Imported];

    /// The name as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            CodeKind::Shared => "SHARED",
            CodeKind::Unique => "UNIQUE",
            CodeKind::Imported => "IMPORTED",
        }
    }

    pub fn parse(text: &str) -> Option<CodeKind> {
        CodeKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Codes that were made together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeBatch {
    pub id: CodeBatchId,
    pub template_id: TemplateId,
    pub kind: CodeKind,
    pub name: String,
    pub status: CodeStatus,
    /// How many codes it is to have; what it has when it is complete.
    pub code_count: i64,
    /// How many it has.
    pub added_count: i64,
    /// The number that the next code added gets. Numbers of codes that existed already are skipped.
    pub next_number: i64,
    /// Coupons claimed with them.
    pub claimed_count: i64,
    /// How often each code may be claimed with; `None` is any number of times.
    pub max_uses: Option<i64>,
    /// How the texts look, for people: the pattern; of a shared code the text itself, which is no secret.
    pub pattern: String,
    /// The characters that the random places of the pattern are drawn from.
    pub alphabet: String,
    /// Whether the last random place is a check character over the others.
    pub check_character: bool,
    /// Which of the server's keys its digests are made with.
    pub key_id: i64,
    /// Random bits from which, with that key, unique codes can be made again until they have been exported. Never part of an
    /// outcome.
    #[serde(skip)]
    pub nonce: Option<[u8; 16]>,
    pub completed_at: Option<Timestamp>,
    /// When the one export was complete; since then nobody can make the codes again.
    pub exported_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One code, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    pub digest: CodeDigest,
    pub batch_id: CodeBatchId,
    /// Its place in the batch, from 0.
    pub number: i64,
    pub status: CodeStatus,
    pub max_uses: Option<i64>,
    pub use_count: i64,
    /// Who alone may claim with it; `None` is anybody.
    pub member_id: Option<MemberId>,
}

impl Code {
    fn new(digest: CodeDigest, batch_id: CodeBatchId, number: i64, max_uses: Option<i64>) -> Code {
        Code { digest, batch_id, number, status: CodeStatus::Active, max_uses, use_count: 0, member_id: None }
    }

    pub fn is_for(&self, member: &MemberId) -> bool {
        self.member_id.as_ref().is_none_or(|holder| holder == member)
    }

    pub fn is_used_up(&self) -> bool {
        self.max_uses.is_some_and(|most| self.use_count >= most)
    }
}

/// Which coupon was claimed with which code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeUse {
    pub coupon_id: CouponId,
    pub batch_id: CodeBatchId,
    pub digest: CodeDigest,
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCodeBatch {
    pub template_id: TemplateId,
    pub kind: CodeKind,
    pub name: String,
    /// Zero for an import, which is complete when it says so.
    pub code_count: i64,
    pub max_uses: Option<i64>,
    pub pattern: String,
    pub alphabet: String,
    pub check_character: bool,
    pub key_id: i64,
    pub nonce: Option<[u8; 16]>,
    /// The digest of a shared code.
    pub shared: Option<CodeDigest>,
}

pub fn create_batch(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    new: &NewCodeBatch,
) -> Result<Outcome, Rejection> {
    let template = state.template(envelope.tenant, new.template_id)?;
    if template.archived_at.is_some() {
        return Err(Rejection::TemplateArchived);
    }
    if let Some(digest) = new.shared
        && state.code(envelope.tenant, digest).is_some()
    {
        return Err(Rejection::CodeTaken);
    }
    let complete = new.shared.is_some();
    let batch = CodeBatch {
        id: CodeBatchId(ids.draw()),
        template_id: new.template_id,
        kind: new.kind,
        name: new.name.clone(),
        status: CodeStatus::Active,
        code_count: new.code_count,
        added_count: complete.into(),
        next_number: complete.into(),
        claimed_count: 0,
        max_uses: new.max_uses,
        pattern: new.pattern.clone(),
        alphabet: new.alphabet.clone(),
        check_character: new.check_character,
        key_id: new.key_id,
        nonce: new.nonce,
        completed_at: complete.then_some(envelope.at),
        exported_at: None,
        created_at: envelope.at,
        updated_at: envelope.at,
    };
    if let Some(digest) = new.shared {
        state.insert_code(envelope.tenant, Code::new(digest, batch.id, 0, new.max_uses));
    }
    state.count_code_batch(envelope.tenant, new.template_id);
    state.insert_code_batch(envelope.tenant, batch.clone());
    let data = format!(
        "{{\"template_id\":\"{}\",\"kind\":\"{}\",\"code_count\":{}}}",
        batch.template_id,
        batch.kind.as_str(),
        batch.code_count
    );
    record(state, envelope, ids, &batch, EventKind::CodeBatchCreated, data);
    Ok(Outcome::CodeBatch(Box::new(batch)))
}

/// Adds the codes that do not exist yet; the numbers of the others are skipped and told.
#[expect(clippy::too_many_arguments, reason = "the parts of a page of codes, each of its own type")]
pub fn add_codes(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    batch_id: CodeBatchId,
    from_number: i64,
    digests: &[CodeDigest],
    max_uses: &[Option<i64>],
    holders: &[Option<MemberId>],
    last: bool,
) -> Result<Outcome, Rejection> {
    let mut batch = state.code_batch(envelope.tenant, batch_id)?.clone();
    if batch.completed_at.is_some() || batch.next_number != from_number {
        return Err(Rejection::CodeBatchOutOfStep { generated: batch.next_number });
    }
    if batch.status == CodeStatus::Revoked {
        return Err(Rejection::CodeRevoked);
    }
    let mut known = Vec::new();
    for (number, digest) in (from_number..).zip(digests) {
        if state.code(envelope.tenant, *digest).is_some() {
            known.push(number);
            continue;
        }
        let place = usize::try_from(number - from_number).unwrap_or_default();
        let max_uses = max_uses.get(place).copied().unwrap_or(batch.max_uses);
        let member_id = holders.get(place).cloned().flatten();
        state.insert_code(envelope.tenant, Code { member_id, ..Code::new(*digest, batch_id, number, max_uses) });
        batch.added_count += 1;
    }
    batch.next_number += digests.len() as i64;
    let data = format!("{{\"added_count\":{},\"next_number\":{}}}", batch.added_count, batch.next_number);
    record(state, envelope, ids, &batch, EventKind::CodesAdded, data);
    let complete = match batch.kind {
        CodeKind::Imported => last,
        CodeKind::Unique | CodeKind::Shared => batch.added_count >= batch.code_count,
    };
    if complete {
        batch.code_count = batch.added_count;
        batch.completed_at = Some(envelope.at);
        let data = format!("{{\"code_count\":{}}}", batch.code_count);
        record(state, envelope, ids, &batch, EventKind::CodeBatchCompleted, data);
    }
    save(state, envelope, &mut batch);
    Ok(Outcome::CodesAdded { batch: Box::new(batch), known })
}

/// Switches a batch on or off, or revokes it.
pub fn change_batch(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CodeBatchId,
    status: CodeStatus,
) -> Result<Outcome, Rejection> {
    let mut batch = state.code_batch(envelope.tenant, id)?.clone();
    if batch.status != status {
        if batch.status == CodeStatus::Revoked {
            return Err(Rejection::CodeRevoked);
        }
        batch.status = status;
        if status == CodeStatus::Revoked {
            // Nothing is to be made from it any more.
            batch.nonce = None;
        }
        let data = format!("{{\"status\":\"{}\"}}", status.as_str());
        record(state, envelope, ids, &batch, EventKind::CodeBatchChanged, data);
        save(state, envelope, &mut batch);
    }
    Ok(Outcome::CodeBatch(Box::new(batch)))
}

/// Switches a single code on or off, or revokes it.
pub fn change_code(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    batch_id: CodeBatchId,
    digest: CodeDigest,
    status: CodeStatus,
) -> Result<Outcome, Rejection> {
    let batch = state.code_batch(envelope.tenant, batch_id)?.clone();
    let found = state.code(envelope.tenant, digest).filter(|code| code.batch_id == batch_id);
    let mut code = found.ok_or(Rejection::CodeNotFound)?.clone();
    if code.status != status {
        if code.status == CodeStatus::Revoked {
            return Err(Rejection::CodeRevoked);
        }
        code.status = status;
        let data = format!("{{\"number\":{},\"status\":\"{}\"}}", code.number, status.as_str());
        record(state, envelope, ids, &batch, EventKind::CodeChanged, data);
        state.save_code(envelope.tenant, code);
    }
    Ok(Outcome::CodeBatch(Box::new(batch)))
}

/// Lets only this member claim with a single code, or anybody again. One that was claimed with stays as it is: its uses are
/// its holder's.
pub fn assign_code(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    batch_id: CodeBatchId,
    digest: CodeDigest,
    member_id: Option<&MemberId>,
) -> Result<Outcome, Rejection> {
    let batch = state.code_batch(envelope.tenant, batch_id)?.clone();
    let found = state.code(envelope.tenant, digest).filter(|code| code.batch_id == batch_id);
    let mut code = found.ok_or(Rejection::CodeNotFound)?.clone();
    if code.member_id.as_ref() != member_id {
        if code.status == CodeStatus::Revoked {
            return Err(Rejection::CodeRevoked);
        }
        if code.use_count > 0 {
            return Err(Rejection::CodeInUse { uses: code.use_count });
        }
        code.member_id = member_id.cloned();
        let holder = member_id.map(|member| format!(",\"member_id\":{}", quoted(member.as_str())));
        let data = format!("{{\"number\":{}{}}}", code.number, holder.unwrap_or_default());
        record(state, envelope, ids, &batch, EventKind::CodeAssigned, data);
        state.save_code(envelope.tenant, code);
    }
    Ok(Outcome::CodeBatch(Box::new(batch)))
}

/// Ends the export of a batch: what its codes could be made from is destroyed.
pub fn seal_batch(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    id: CodeBatchId,
) -> Result<Outcome, Rejection> {
    let mut batch = state.code_batch(envelope.tenant, id)?.clone();
    if batch.exported_at.is_none() {
        batch.nonce = None;
        batch.exported_at = Some(envelope.at);
        let data = format!("{{\"code_count\":{}}}", batch.code_count);
        record(state, envelope, ids, &batch, EventKind::CodeBatchExported, data);
        save(state, envelope, &mut batch);
    }
    Ok(Outcome::CodeBatch(Box::new(batch)))
}

/// A code as it was found before the command was made.
#[derive(Debug, Clone, Copy)]
pub struct CodeAtHand {
    pub digest: CodeDigest,
    pub batch_id: CodeBatchId,
    pub template_id: TemplateId,
}

/// A member claims with a code: first the code's own checks, which all refuse alike, then those of every claim.
pub fn claim_code(
    state: &mut State,
    envelope: &Envelope,
    ids: &mut Ids,
    at_hand: CodeAtHand,
    member_id: &MemberId,
    member_level: Option<&str>,
) -> Result<Outcome, Interrupt> {
    let tenant = envelope.tenant;
    let CodeAtHand { digest, batch_id, template_id } = at_hand;
    let is_open = |batch: &CodeBatch| batch.status == CodeStatus::Active && batch.template_id == template_id;
    let batch = state.code_batch(tenant, batch_id).ok().filter(|batch| is_open(batch));
    let mut batch = batch.ok_or(Rejection::CodeNotAccepted)?.clone();
    let is_good = |code: &&Code| {
        code.batch_id == batch_id && code.status == CodeStatus::Active && !code.is_used_up() && code.is_for(member_id)
    };
    let mut code = state.code(tenant, digest).filter(is_good).ok_or(Rejection::CodeNotAccepted)?.clone();

    let source = CouponSource::Code;
    let details = format!(",\"code_batch_id\":\"{batch_id}\"");
    let coupon: Coupon = issue(state, envelope, ids, template_id, member_id, member_level, source, &details)?;
    code.use_count += 1;
    state.save_code(tenant, code);
    batch.claimed_count += 1;
    state.save_code_batch(tenant, batch);
    state.insert_code_use(tenant, CodeUse { coupon_id: coupon.id, batch_id, digest });
    Ok(Outcome::Coupon(Box::new(coupon)))
}

fn save(state: &mut State, envelope: &Envelope, batch: &mut CodeBatch) {
    batch.updated_at = envelope.at;
    state.save_code_batch(envelope.tenant, batch.clone());
}

fn record(state: &mut State, envelope: &Envelope, ids: &mut Ids, batch: &CodeBatch, kind: EventKind, data: String) {
    state.record_event(envelope, ids, envelope.at, kind, batch.id.0, None, data);
}
