//! Everything the API says no with: one table of codes, each with its status and its texts in English and Chinese.
//!
//! A handler returns a [`Problem`]; the edge writes the body (RFC 9457), since only it knows the request's id and language.
//! The same table makes the page at `/docs/errors`, to which every problem's `type` points.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use scrip_domain::{Rejection, TaskKey, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::{FieldError, FieldErrors};
use super::schema;
use super::time::Time;
use crate::engine::SubmitError;
use crate::jobs::expire::SweepError;
use crate::store::StoreError;

/// One line of the table. `{name}` in a detail stands for a value of the case at hand.
pub struct Entry {
    pub code: &'static str,
    pub status: StatusCode,
    kind: &'static str,
    pub title: [&'static str; 2],
    pub detail: [&'static str; 2],
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:ident;
       $en_title:literal, $en_detail:literal;
       $zh_title:literal, $zh_detail:literal;)*) => {
        /// Why a request was not granted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($variant,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];
        }

        static TABLE: &[Entry] = &[$(Entry {
            code: $code,
            status: StatusCode::$status,
            kind: concat!("/docs/errors#", $code),
            title: [$en_title, $zh_title],
            detail: [$en_detail, $zh_detail],
        },)*];
    };
}

codes! {
    InvalidRequest = "INVALID_REQUEST", BAD_REQUEST;
    "Invalid request", "Fields of the request are missing or wrong; `errors` names each of them.";
    "请求无效", "请求中有字段缺失或有误，详见 `errors` 中逐项说明。";

    MalformedBody = "MALFORMED_BODY", BAD_REQUEST;
    "Malformed body", "The body cannot be read: {reason}. Send one JSON object in UTF-8 (or NDJSON to /v1/batch).";
    "请求体格式错误", "无法读取请求体：{reason}。请发送 UTF-8 编码的 JSON 对象（/v1/batch 使用 NDJSON）。";

    KeyMissing = "API_KEY_MISSING", UNAUTHORIZED;
    "API key missing", "Send the header `Authorization: Bearer <key>`.";
    "缺少 API 密钥", "请在请求头中发送 `Authorization: Bearer <密钥>`。";

    KeyInvalid = "API_KEY_INVALID", UNAUTHORIZED;
    "API key invalid", "The API key is mistyped, unknown, expired or revoked. Check it, or create another one.";
    "API 密钥无效", "API 密钥有误、不存在、已过期或已吊销。请检查密钥或重新创建。";

    ScopeRequired = "SCOPE_REQUIRED", FORBIDDEN;
    "Scope required", "The request needs {needed}; this key's scope is {scope}.";
    "权限不足", "该请求需要 {needed}；当前密钥的权限为 {scope}。";

    RouteNotFound = "NOT_FOUND", NOT_FOUND;
    "Not found", "There is no such path. /docs lists them all.";
    "路径不存在", "该路径不存在，全部路径见 /docs。";

    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED;
    "Method not allowed", "The path exists, but not with this method; the `Allow` header lists those it has.";
    "方法不允许", "该路径不支持此方法，支持的方法见 `Allow` 响应头。";

    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT;
    "Request timeout", "The body did not arrive within {seconds} seconds. Send it again.";
    "请求超时", "请求体未能在 {seconds} 秒内到达，请重新发送。";

    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE;
    "Body too large", "The body may have at most {limit}. Send less at a time.";
    "请求体过大", "请求体最多为 {limit}，请分次发送。";

    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE;
    "Unsupported media type", "Send the body with `Content-Type: {expected}`.";
    "不支持的媒体类型", "请以 `Content-Type: {expected}` 发送请求体。";

    PreconditionRequired = "PRECONDITION_REQUIRED", PRECONDITION_REQUIRED;
    "Precondition required", "Send `If-Match` with the ETag of what you edit, as you have read it.";
    "缺少前置条件", "请在 `If-Match` 中发送所读取对象的 ETag。";

    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", UNPROCESSABLE_ENTITY;
    "Idempotency key reused", "This Idempotency-Key was used for another request. Use a fresh key for each request.";
    "幂等键重复使用", "该 Idempotency-Key 已用于另一请求，请为每个请求使用新的键。";

    DeadlinePassed = "DEADLINE_PASSED", UNPROCESSABLE_ENTITY;
    "Deadline passed", "`{field}` must lie after the time the command takes effect.";
    "截止时间已过", "`{field}` 必须晚于命令的生效时间。";

    QuotaExceeded = "QUOTA_EXCEEDED", TOO_MANY_REQUESTS;
    "Quota exceeded",
    "The tenant may send {per_second} requests and commands a second; this one was not applied. Ask again in {seconds} seconds.";
    "超出配额", "该租户每秒最多可发送 {per_second} 个请求或命令，本次请求未执行。请在 {seconds} 秒后重试。";

    Busy = "SERVER_BUSY", SERVICE_UNAVAILABLE;
    "Server busy", "The server is at its capacity; the request was not applied. Ask again after `Retry-After` seconds.";
    "服务器繁忙", "服务器已满负荷，请求未执行。请在 `Retry-After` 秒后重试。";

    Draining = "SERVER_DRAINING", SERVICE_UNAVAILABLE;
    "Server stopping", "The server is shutting down; the request was not applied. Ask again: another server will answer.";
    "服务器正在停止", "服务器正在关闭，请求未执行。请重试，将由其他服务器响应。";

    Starting = "SERVER_STARTING", SERVICE_UNAVAILABLE;
    "Server starting", "The server does not serve requests yet. Ask again after `Retry-After` seconds.";
    "服务器正在启动", "服务器尚未就绪，请在 `Retry-After` 秒后重试。";

    DeadlineExceeded = "DEADLINE_EXCEEDED", SERVICE_UNAVAILABLE;
    "Deadline exceeded", "The request waited too long for its turn and was not applied. Ask again after `Retry-After` seconds.";
    "等待超时", "请求等待过久，未执行。请在 `Retry-After` 秒后重试。";

    StoreUnavailable = "STORE_UNAVAILABLE", SERVICE_UNAVAILABLE;
    "Store unavailable", "The database cannot be reached; the request was not applied. Ask again after `Retry-After` seconds.";
    "存储不可用", "无法访问数据库，请求未执行。请在 `Retry-After` 秒后重试。";

    DiskFull = "STORE_DISK_FULL", SERVICE_UNAVAILABLE;
    "Disk full", "The database's disk is full; the request was not applied. An operator must make room.";
    "磁盘已满", "数据库磁盘已满，请求未执行。请运维人员清理空间。";

    OutcomeUnknown = "OUTCOME_UNKNOWN", SERVICE_UNAVAILABLE;
    "Outcome unknown",
    "The connection to the database was lost while committing: the request may or may not have been applied. Ask again \
     with the same Idempotency-Key; without one, read the object first.";
    "结果未知",
    "提交时与数据库的连接中断，请求可能已执行，也可能未执行。请使用相同的 Idempotency-Key 重试；若未使用幂等键，请先查询对象。";

    Internal = "INTERNAL", INTERNAL_SERVER_ERROR;
    "Internal error", "The server failed; the cause is in its log under this request_id.";
    "内部错误", "服务器内部错误，原因可按此 request_id 在日志中查找。";

    TenantNotFound = "TENANT_NOT_FOUND", NOT_FOUND;
    "Tenant not found", "There is no such tenant. GET /v1/tenants lists them.";
    "租户不存在", "该租户不存在，可通过 GET /v1/tenants 查询。";

    ProgramNotFound = "PROGRAM_NOT_FOUND", NOT_FOUND;
    "Program not found",
    "The header `Scrip-Program` names the program {program}, which the tenant does not have. GET /v1/programs lists those there are; without the header the request is the tenant's own.";
    "积分项目不存在",
    "请求头 `Scrip-Program` 指定的积分项目 {program} 不存在，可通过 GET /v1/programs 查询；不发送该请求头则为租户本身的请求。";

    ProgramMisplaced = "PROGRAM_MISPLACED", BAD_REQUEST;
    "Not for a program",
    "The request concerns the tenant itself, not one of its programs. Send it without the header `Scrip-Program`.";
    "不适用于积分项目", "该请求针对租户本身，不适用于积分项目，请去掉请求头 `Scrip-Program`。";

    TenantIsProgram = "TENANT_IS_PROGRAM", UNPROCESSABLE_ENTITY;
    "Tenant is a program",
    "The tenant is a program of another one, whose API keys ask for it with the header `Scrip-Program`. It has no keys and no programs of its own.";
    "该租户为积分项目", "该租户是另一租户的积分项目，由其 API 密钥通过请求头 `Scrip-Program` 访问，自身没有密钥和积分项目。";

    ProgramExists = "PROGRAM_EXISTS", CONFLICT;
    "Program exists", "The tenant has a program of this code already. GET /v1/programs lists them; choose another code.";
    "积分项目已存在", "该租户已有此代码的积分项目，可通过 GET /v1/programs 查询，请使用其他代码。";

    ProgramLimitReached = "PROGRAM_LIMIT_REACHED", UNPROCESSABLE_ENTITY;
    "Too many programs", "A tenant may have {most} programs, and this one has them. Use one of those.";
    "积分项目数量已达上限", "每个租户最多可有 {most} 个积分项目，已达上限，请使用已有的项目。";

    KeyNotFound = "API_KEY_NOT_FOUND", NOT_FOUND;
    "API key not found", "The tenant has no such API key. GET /v1/tenants/{tenant_id}/api-keys lists them.";
    "API 密钥不存在", "该租户没有此 API 密钥，可通过 GET /v1/tenants/{tenant_id}/api-keys 查询。";

    WebhookNotFound = "WEBHOOK_NOT_FOUND", NOT_FOUND;
    "Webhook not found", "There is no such webhook. GET /v1/webhooks lists them.";
    "Webhook 不存在", "该 Webhook 不存在，可通过 GET /v1/webhooks 查询。";

    WebhookLimit = "WEBHOOK_LIMIT_REACHED", UNPROCESSABLE_ENTITY;
    "Too many webhooks", "A tenant may have {limit} webhooks. Delete one that is no longer needed.";
    "Webhook 数量已达上限", "每个租户最多可有 {limit} 个 Webhook，请先删除不再需要的。";

    TemplateNotFound = "COUPON_TEMPLATE_NOT_FOUND", NOT_FOUND;
    "Coupon template not found", "There is no such coupon template. GET /v1/coupon-templates lists them.";
    "优惠券模板不存在", "该优惠券模板不存在，可通过 GET /v1/coupon-templates 查询。";

    CouponNotFound = "COUPON_NOT_FOUND", NOT_FOUND;
    "Coupon not found", "There is no such coupon. GET /v1/members/{member_id}/coupons lists a member's.";
    "优惠券不存在", "该优惠券不存在，可通过 GET /v1/members/{member_id}/coupons 查询会员的优惠券。";

    HoldNotFound = "POINTS_HOLD_NOT_FOUND", NOT_FOUND;
    "Points hold not found", "There is no such hold. POST /v1/members/{member_id}/points/holds answers with the id of a new one.";
    "积分冻结不存在", "该积分冻结不存在。冻结编号由 POST /v1/members/{member_id}/points/holds 返回。";

    TransactionNotFound = "POINTS_TRANSACTION_NOT_FOUND", NOT_FOUND;
    "Points transaction not found",
    "There is no such transaction. GET /v1/members/{member_id}/points/transactions lists a member's.";
    "积分流水不存在", "该积分流水不存在，可通过 GET /v1/members/{member_id}/points/transactions 查询会员的流水。";

    JobNotFound = "JOB_NOT_FOUND", NOT_FOUND;
    "Job not found", "There is no such job, or it was deleted after its time. GET /v1/jobs lists them.";
    "任务不存在", "该任务不存在或已过期删除，可通过 GET /v1/jobs 查询。";

    BulkNotFound = "BULK_NOT_FOUND", NOT_FOUND;
    "Bulk not found", "There is no such distribution or import. GET /v1/distributions and GET /v1/points-grants list them.";
    "批量任务不存在", "该发放或导入不存在，可通过 GET /v1/distributions 和 GET /v1/points-grants 查询。";

    BulkMoved = "BULK_MOVED", CONFLICT;
    "Bulk moved on", "These rows were worked off already, or the bulk was cancelled.";
    "批量任务已推进", "这些行已处理，或批量任务已取消。";

    BulkResultsDropped = "BULK_RESULTS_DROPPED", GONE;
    "Results deleted", "The results were deleted after their time (the setting jobs.bulk_days); the counts are kept.";
    "结果已删除", "结果已过保留期（设置项 jobs.bulk_days）并被删除，计数仍保留。";

    WindowsAnnounced = "COUPON_WINDOWS_ANNOUNCED", CONFLICT;
    "Windows announced", "The issue windows up to that time were announced already.";
    "发放窗口已通知", "该时间之前的发放窗口已通知。";

    JobLeaseLost = "JOB_LEASE_LOST", CONFLICT;
    "Job passed on", "The job was cancelled or is done by another server by now.";
    "任务已转交", "该任务已取消或正由其他服务器执行。";

    TemplateVersionStale = "COUPON_TEMPLATE_VERSION_STALE", PRECONDITION_FAILED;
    "Template changed meanwhile", "The template is at version {current} now. Read it again, then repeat the edit.";
    "模板已被修改", "模板当前版本为 {current}。请重新读取后再修改。";

    RulesVersionStale = "POINTS_RULES_VERSION_STALE", PRECONDITION_FAILED;
    "Rules changed meanwhile", "The newest version of the rules is {current}. Read them again, then repeat the change.";
    "规则已被修改", "规则的最新版本为 {current}。请重新读取后再修改。";

    RulesTooManyVersions = "POINTS_RULES_TOO_MANY_VERSIONS", UNPROCESSABLE_ENTITY;
    "Too many versions", "The rules have {most} versions, which is the limit.";
    "版本过多", "规则已有 {most} 个版本，达到上限。";

    TemplateInUse = "COUPON_TEMPLATE_IN_USE", CONFLICT;
    "Template in use", "{claimed} coupons were claimed from this template, so it cannot be deleted. Disable it instead.";
    "模板已被使用", "该模板已被领取 {claimed} 张，不能删除，请改为停用。";

    TemplateHasCodes = "COUPON_TEMPLATE_HAS_CODES", CONFLICT;
    "Template has codes", "{batches} batches of codes were made for this template, so it cannot be deleted. Archive it instead.";
    "模板已有券码", "该模板已有 {batches} 批券码，不能删除，请改为归档。";

    TemplateImported = "COUPON_TEMPLATE_IMPORTED", CONFLICT;
    "Template imported", "An imported template cannot be deleted: its id could be imported again. Edit it, or archive it instead.";
    "模板为导入模板", "导入的模板不能删除，因为其编号可能再次被导入。请改为编辑或归档。";

    TemplateArchived = "COUPON_TEMPLATE_ARCHIVED", CONFLICT;
    "Template archived", "The template is archived and stays as it is. POST /v1/coupon-templates/{template_id}/clone makes a new one of it.";
    "模板已归档", "该模板已归档，不可更改。可通过 POST /v1/coupon-templates/{template_id}/clone 复制为新模板。";

    BudgetBelowCommitted = "COUPON_BUDGET_BELOW_COMMITTED", UNPROCESSABLE_ENTITY;
    "Budget below what is committed", "Coupons already claimed can take off {committed}; the budget cannot be less.";
    "预算低于已承诺金额", "已领取的优惠券最多可抵扣 {committed}，预算不能低于该金额。";

    StockUnlimited = "COUPON_STOCK_UNLIMITED", UNPROCESSABLE_ENTITY;
    "Stock unlimited", "The template's stock is unlimited, so there is nothing to add or take away.";
    "库存不限", "该模板库存不限，无法增减。";

    StockOutOfRange = "COUPON_STOCK_OUT_OF_RANGE", UNPROCESSABLE_ENTITY;
    "Stock out of range",
    "{remaining} coupons are left: at most that many can be taken away, and the total may not exceed {max_total}.";
    "库存超出范围", "剩余 {remaining} 张：最多可减少此数量，且总量不得超过 {max_total}。";

    TemplateForPoints = "COUPON_FOR_POINTS", UNPROCESSABLE_ENTITY;
    "Coupon costs points", "The coupon costs {price} points: POST /v1/coupon-templates/{template_id}/exchanges pays them and gives it.";
    "该券需用积分兑换", "该优惠券需 {price} 积分，请通过 POST /v1/coupon-templates/{template_id}/exchanges 兑换。";

    TemplateNotForPoints = "COUPON_NOT_FOR_POINTS", UNPROCESSABLE_ENTITY;
    "Coupon not for points", "The template has no `points_price`: POST /v1/coupon-templates/{template_id}/claims claims its coupons.";
    "该券不可用积分兑换", "该模板未设置 `points_price`，请通过 POST /v1/coupon-templates/{template_id}/claims 领取。";

    TemplateDisabled = "COUPON_TEMPLATE_DISABLED", UNPROCESSABLE_ENTITY;
    "Template disabled", "The template is disabled. An operator can enable it again.";
    "模板已停用", "该模板已停用，可由运营人员重新启用。";

    ClaimNotStarted = "COUPON_CLAIM_NOT_STARTED", UNPROCESSABLE_ENTITY;
    "Claims not open yet", "Coupons of this template can be claimed from {starts_at}.";
    "领取未开始", "该优惠券自 {starts_at} 起可领取。";

    ClaimEnded = "COUPON_CLAIM_ENDED", UNPROCESSABLE_ENTITY;
    "Claims ended", "Coupons of this template could be claimed until {ended_at}.";
    "领取已结束", "该优惠券的领取已于 {ended_at} 结束。";

    ValidityEnded = "COUPON_VALIDITY_ENDED", UNPROCESSABLE_ENTITY;
    "Validity over", "Coupons of this template were valid until {ended_at}; a new one would be of no use.";
    "有效期已过", "该优惠券的有效期已于 {ended_at} 结束，不能再领取。";

    MemberLevel = "COUPON_MEMBER_LEVEL", UNPROCESSABLE_ENTITY;
    "Member level not entitled",
    "The coupon is for members of these levels: {allowed}. Send the member's level in `member_level`.";
    "会员等级不符", "该优惠券仅限以下等级的会员：{allowed}。请在 `member_level` 中发送会员等级。";

    LimitReached = "COUPON_LIMIT_REACHED", UNPROCESSABLE_ENTITY;
    "Limit reached", "The member has claimed {limit} coupons of this template, which is the limit.";
    "已达领取上限", "该会员已领取 {limit} 张，达到每人上限。";

    PeriodClosed = "COUPON_PERIOD_CLOSED", UNPROCESSABLE_ENTITY;
    "Period closed",
    "The template has a cap for each {period} and claims since {since} were counted, so none can be made as of one before. Send a later `effective_at`.";
    "周期已关闭", "该模板设有周期上限（{period}），且已统计 {since} 之后的领取，不能补录更早周期的领取。请使用更晚的 `effective_at`。";

    CapReached = "COUPON_CAP_REACHED", UNPROCESSABLE_ENTITY;
    "Cap reached", "All {cap} coupons of the {period} have been claimed. The next ones can be claimed from {ends_at}.";
    "本期已领完", "本周期（{period}）的 {cap} 张优惠券已领完，下一批自 {ends_at} 起可领取。";

    BudgetExhausted = "COUPON_BUDGET_EXHAUSTED", UNPROCESSABLE_ENTITY;
    "Budget exhausted", "One more coupon could take off more than the template's budget of {budget} has left. An operator can raise it.";
    "预算已用尽", "再领取一张将超出该模板 {budget} 的预算，可由运营人员提高预算。";

    SoldOut = "COUPON_SOLD_OUT", UNPROCESSABLE_ENTITY;
    "Sold out", "All {total} coupons of this template have been claimed. An operator can add stock.";
    "已领完", "该模板的 {total} 张优惠券已全部领完，可由运营人员增加库存。";

    CouponExpired = "COUPON_EXPIRED", UNPROCESSABLE_ENTITY;
    "Coupon expired", "The coupon was valid until {valid_until}.";
    "优惠券已过期", "该优惠券有效期至 {valid_until}。";

    CouponNotYetValid = "COUPON_NOT_YET_VALID", UNPROCESSABLE_ENTITY;
    "Coupon not yet valid", "The coupon is valid from {valid_from}.";
    "优惠券未生效", "该优惠券自 {valid_from} 起生效。";

    CouponLocked = "COUPON_LOCKED", CONFLICT;
    "Coupon locked", "The coupon is locked by the order {order_id}. Unlock it for that order first.";
    "优惠券已锁定", "该优惠券已被订单 {order_id} 锁定，请先为该订单解锁。";

    CouponNotLocked = "COUPON_NOT_LOCKED", CONFLICT;
    "Coupon not locked", "The coupon is not locked. Lock it for the order first, then use it.";
    "优惠券未锁定", "该优惠券尚未锁定，请先为订单锁定后再使用。";

    CouponUsed = "COUPON_USED", CONFLICT;
    "Coupon used", "The coupon was used by the order {order_id}. Return it first when that order is refunded.";
    "优惠券已使用", "该优惠券已被订单 {order_id} 使用。若该订单已退款，请先退回优惠券。";

    CouponNotUsed = "COUPON_NOT_USED", CONFLICT;
    "Coupon not used", "The coupon is {status}; only a used one can be returned.";
    "优惠券未使用", "该优惠券的状态为 {status}，仅已使用的优惠券可退回。";

    CouponNotReturnable = "COUPON_NOT_RETURNABLE", UNPROCESSABLE_ENTITY;
    "Coupon not returnable", "The template says that its coupons do not return: see its `returnable`. The coupon stays used.";
    "优惠券不可退回", "模板规定该优惠券不可退回（见模板的 `returnable`），该券保持已使用状态。";

    CouponRevoked = "COUPON_REVOKED", CONFLICT;
    "Coupon revoked", "The coupon was revoked by an operator and stays so.";
    "优惠券已作废", "该优惠券已被运营人员作废，不可恢复。";

    OrderMismatch = "COUPON_ORDER_MISMATCH", CONFLICT;
    "Another order's coupon", "The coupon is held by another order. Send the `order_id` it was locked with.";
    "订单不符", "该优惠券属于其他订单，请发送锁定时使用的 `order_id`。";

    CouponOutsideHours = "COUPON_OUTSIDE_HOURS", UNPROCESSABLE_ENTITY;
    "Outside the usable hours",
    "The coupon cannot be used on this day or at this hour: see the template's `usable_hours` and `excluded_dates`.";
    "不在可用时段", "该优惠券在当前日期或时段不可用，见模板的 `usable_hours` 与 `excluded_dates`。";

    CouponOutOfScope = "COUPON_OUT_OF_SCOPE", UNPROCESSABLE_ENTITY;
    "No eligible goods", "The coupon applies to none of the order's goods: see the template's `scope`.";
    "无适用商品", "该优惠券不适用于订单中的任何商品，适用范围见模板的 `scope`。";

    CouponQuantity = "COUPON_QUANTITY_TOO_LOW", UNPROCESSABLE_ENTITY;
    "Too few eligible goods", "The coupon needs {min_quantity} eligible units; the order has {eligible_quantity}.";
    "适用商品数量不足", "该优惠券需要 {min_quantity} 件适用商品，订单中有 {eligible_quantity} 件。";

    CouponBelowThreshold = "COUPON_BELOW_THRESHOLD", UNPROCESSABLE_ENTITY;
    "Below the threshold",
    "The coupon needs eligible goods of {min_amount}; those of the order cost {eligible_amount} (in minor units).";
    "未达使用门槛", "该优惠券要求适用商品满 {min_amount}，订单中为 {eligible_amount}（最小货币单位）。";

    CouponConditionUnmet = "COUPON_CONDITION_UNMET", UNPROCESSABLE_ENTITY;
    "Condition not met", "The order or the member does not fulfil the coupon's condition: see the template's `condition`.";
    "未满足使用条件", "订单或会员未满足该优惠券的使用条件，见模板的 `condition`。";

    CouponConditionFailed = "COUPON_CONDITION_FAILED", UNPROCESSABLE_ENTITY;
    "Condition undecided",
    "Whether the coupon's condition holds cannot be said: {cause}. Send what the template's `condition` asks for.";
    "无法判断使用条件", "无法判断该优惠券的使用条件：{cause}。请提供模板 `condition` 所需的数据。";

    CouponProductMissing = "COUPON_PRODUCT_MISSING", UNPROCESSABLE_ENTITY;
    "Product missing", "The order lacks the product that the coupon gives. Add one unit of it.";
    "缺少兑换商品", "订单中没有该优惠券所兑换的商品，请加入一件。";

    CouponNotStackable = "COUPON_NOT_STACKABLE", UNPROCESSABLE_ENTITY;
    "Not stackable", "The coupon does not combine with {with}. Use one of them.";
    "不可叠加", "该优惠券不能与 {with} 叠加使用，请选用其中一张。";

    TooManyCoupons = "COUPON_TOO_MANY", UNPROCESSABLE_ENTITY;
    "Too many coupons", "At most {most} coupons apply to one order. Leave one out.";
    "优惠券过多", "每个订单最多使用 {most} 张优惠券，请减少。";

    CouponWithoutEffect = "COUPON_WITHOUT_EFFECT", UNPROCESSABLE_ENTITY;
    "Without effect", "The coupon would take nothing off the order, so it is not consumed.";
    "没有优惠", "该优惠券对此订单没有优惠，因此不会被使用。";

    OrderTooLarge = "ORDER_TOO_LARGE", UNPROCESSABLE_ENTITY;
    "Order too large", "The order's goods may cost at most {most} minor units. Split the order.";
    "订单金额过大", "订单商品金额最多为 {most}（最小货币单位），请拆分订单。";

    OrderNotFound = "ORDER_NOT_FOUND", NOT_FOUND;
    "Order not found", "There is no such order. GET /v1/members/{member_id}/orders lists a member's.";
    "订单不存在", "该订单不存在，可通过 GET /v1/members/{member_id}/orders 查询会员的订单。";

    OrderExists = "ORDER_EXISTS", CONFLICT;
    "Order exists", "Another order has this `order_id`; it is {status}. Send an `order_id` of its own.";
    "订单已存在", "该 `order_id` 已被另一订单使用，其状态为 {status}。请使用新的 `order_id`。";

    OrderQuoteExpired = "ORDER_QUOTE_EXPIRED", UNPROCESSABLE_ENTITY;
    "Quote expired", "The quote held until {expired_at}. Ask for another one.";
    "报价已过期", "该报价有效至 {expired_at}，请重新获取报价。";

    OrderClosed = "ORDER_CLOSED", CONFLICT;
    "Order closed", "The order is {status}. A cancelled one is reserved anew under another `order_id`, a paid one is refunded.";
    "订单已结束", "该订单的状态为 {status}。已取消的订单请以新的 `order_id` 重新预留，已支付的订单请退款。";

    OrderExpired = "ORDER_EXPIRED", CONFLICT;
    "Order expired",
    "The order was released at {expired_at} and cannot be taken again ({reason}). Reserve another one at today's price, or pay the money back.";
    "订单已过期", "该订单已于 {expired_at} 释放，且无法再次占用（{reason}）。请按当前价格重新预留，或退回款项。";

    OrderNotPaid = "ORDER_NOT_PAID", CONFLICT;
    "Order not paid", "The order is {status}; only a paid one can be refunded or confirmed. Cancel it if it is reserved.";
    "订单未支付", "该订单的状态为 {status}，仅已支付的订单可退款或确认。若仅为预留，请取消订单。";

    OrderItemUnknown = "ORDER_ITEM_UNKNOWN", UNPROCESSABLE_ENTITY;
    "Item unknown", "The order has no item {item_id}. GET /v1/orders/{order_id} shows its lines.";
    "商品行不存在", "该订单没有商品行 {item_id}，可通过 GET /v1/orders/{order_id} 查询。";

    RefundExists = "ORDER_REFUND_EXISTS", CONFLICT;
    "Refund exists", "Another refund of the order has this `refund_id`. Send a `refund_id` of its own.";
    "退款已存在", "该订单的另一笔退款已使用此 `refund_id`，请使用新的 `refund_id`。";

    RefundExceeds = "ORDER_REFUND_EXCEEDS", UNPROCESSABLE_ENTITY;
    "Refund exceeds item", "{left} units of the item {item_id} are left to refund.";
    "退款超出商品行", "商品行 {item_id} 还可退 {left} 件。";

    RefundExceedsFreight = "ORDER_REFUND_EXCEEDS_FREIGHT", UNPROCESSABLE_ENTITY;
    "Refund exceeds freight", "{left} of the freight are left to refund.";
    "退款超出运费", "运费还可退 {left}。";

    NothingToRefund = "ORDER_NOTHING_TO_REFUND", CONFLICT;
    "Nothing to refund", "Nothing of the order is left to refund.";
    "无可退内容", "该订单已无可退内容。";

    ManagedByOrder = "ORDER_MANAGES_IT", CONFLICT;
    "Managed by an order", "It belongs to the order {order_id}: pay, cancel or refund that order, which takes care of it.";
    "由订单管理", "该对象属于订单 {order_id}，请对该订单进行支付、取消或退款。";

    CompensationNotFound = "COUPON_COMPENSATION_NOT_FOUND", NOT_FOUND;
    "Compensation case not found", "There is no such case. GET /v1/coupon-compensations lists them.";
    "补偿单不存在", "该补偿单不存在，可通过 GET /v1/coupon-compensations 查询。";

    CompensationClosed = "COUPON_COMPENSATION_CLOSED", CONFLICT;
    "Compensation case closed", "The case is {status} already; it ends only once.";
    "补偿单已结束", "该补偿单的状态为 {status}，只能结束一次。";
    TransferToHolder = "COUPON_TRANSFER_TO_HOLDER", UNPROCESSABLE_ENTITY;
    "Same member", "The coupon is this member's already. Send another `to_member_id`.";
    "会员相同", "该优惠券已属于此会员，请发送其他 `to_member_id`。";

    CouponCodeInUse = "COUPON_CODE_IN_USE", CONFLICT;
    "Code in use", "{uses} coupons have been claimed with the code already, so it cannot be assigned any more. Use another one.";
    "券码已被使用", "该券码已被领取 {uses} 次，不能再指定会员，请使用其他券码。";

    CouponCodeNotAccepted = "COUPON_CODE_NOT_ACCEPTED", UNPROCESSABLE_ENTITY;
    "Code not accepted", "The code cannot be claimed with. Check how it is written; an operator can look it up.";
    "券码不可用", "该券码无法领取优惠券。请检查输入是否正确，运营人员可查询其状态。";

    CouponCodeNotFound = "COUPON_CODE_NOT_FOUND", NOT_FOUND;
    "Code not found", "There is no such code.";
    "券码不存在", "该券码不存在。";

    CodesUnavailable = "COUPON_CODES_UNAVAILABLE", SERVICE_UNAVAILABLE;
    "Codes unavailable", "This server has no usable key for coupon codes; its log says why. An operator sets `codes.key_file`.";
    "券码功能不可用", "该服务器没有可用的券码密钥，原因见日志。请运维人员设置 `codes.key_file`。";

    GuessesExceeded = "COUPON_CODE_GUESSES_EXCEEDED", TOO_MANY_REQUESTS;
    "Too many wrong codes", "Too many codes were sent that are not accepted; this one was not looked at. Ask again in {seconds} seconds.";
    "错误券码过多", "提交的无效券码过多，本次未处理。请在 {seconds} 秒后重试。";

    CodesNotReady = "COUPON_CODES_NOT_READY", CONFLICT;
    "Codes not ready", "{added} of {count} codes have been made. Ask again when the batch has a `completed_at`.";
    "券码尚未生成完毕", "已生成 {added} / {count} 个券码。请在批次的 `completed_at` 有值后重试。";

    CodesExported = "COUPON_CODES_EXPORTED", CONFLICT;
    "Codes exported already", "The codes of this batch were exported once and cannot be read again. If they are lost, revoke the batch and make another.";
    "券码已导出", "该批券码已导出过一次，无法再次读取。若已遗失，请作废该批次并重新生成。";

    CodesNotMadeHere = "COUPON_CODES_NOT_MADE_HERE", CONFLICT;
    "Nothing to export", "Only unique codes made here can be exported; these came from their owner.";
    "无可导出的券码", "仅可导出在此生成的唯一券码，该批券码由外部提供。";

    BatchNotFound = "COUPON_CODE_BATCH_NOT_FOUND", NOT_FOUND;
    "Code batch not found", "There is no such batch of codes. GET /v1/code-batches lists them.";
    "券码批次不存在", "该券码批次不存在，可通过 GET /v1/code-batches 查询。";

    CouponCodeTaken = "COUPON_CODE_TAKEN", CONFLICT;
    "Code taken", "This code exists already, perhaps written differently (case, spaces, dashes, O and 0, I and 1). Choose another.";
    "券码已存在", "该券码已存在（大小写、空格、连字符、O 与 0、I 与 1 视为相同）。请更换。";

    CouponCodeRevoked = "COUPON_CODE_REVOKED", CONFLICT;
    "Code revoked", "It was revoked and stays so.";
    "券码已作废", "该券码已作废，不可恢复。";

    BatchOutOfStep = "COUPON_CODE_BATCH_OUT_OF_STEP", CONFLICT;
    "Code batch out of step", "Codes are being added to this batch from elsewhere as well; it stands at {generated}.";
    "券码批次不同步", "该批次正由其他任务写入，当前进度为 {generated}。";

    PointsInsufficient = "POINTS_INSUFFICIENT", UNPROCESSABLE_ENTITY;
    "Points insufficient", "{requested} points were asked for, {available} are available.";
    "积分不足", "需要 {requested} 积分，可用 {available} 积分。";

    PointsOverflow = "POINTS_OVERFLOW", UNPROCESSABLE_ENTITY;
    "Too many points", "The account would exceed what one account may earn in its life ({max}).";
    "积分超出上限", "该账户累计积分将超出上限（{max}）。";

    HoldClosed = "POINTS_HOLD_CLOSED", CONFLICT;
    "Hold closed", "The hold is {status} already; it ends only once.";
    "冻结已结束", "该积分冻结的状态为 {status}，只能结束一次。";

    HoldExpired = "POINTS_HOLD_EXPIRED", CONFLICT;
    "Hold expired", "The hold passed its deadline and its points were released. Hold them again.";
    "冻结已过期", "该积分冻结已过截止时间，积分已释放。请重新冻结。";

    HoldPending = "POINTS_HOLD_PENDING", CONFLICT;
    "Points not available yet", "The hold keeps granted points until {available_from} and ends then by itself; reverse the grant to take them back.";
    "积分尚未生效", "该冻结为尚未生效的积分，将于 {available_from} 自动解除；如需收回，请撤销发放交易。";

    ExpiresBeforeAvailable = "POINTS_EXPIRES_BEFORE_AVAILABLE", UNPROCESSABLE_ENTITY;
    "Expires before it is available", "`expires_at` must lie after `available_from`.";
    "生效前已过期", "`expires_at` 必须晚于 `available_from`。";

    AccountMerged = "POINTS_ACCOUNT_MERGED", CONFLICT;
    "Account merged", "The member's account was merged into that of {into}. Send the request for that member.";
    "账户已合并", "该会员账户已合并至会员 {into}，请以该会员发送请求。";

    SameMember = "POINTS_SAME_MEMBER", UNPROCESSABLE_ENTITY;
    "Same member", "Points move between two members. Name another one.";
    "会员相同", "积分只能在两个不同会员之间转移，请指定另一会员。";

    InDebt = "POINTS_IN_DEBT", UNPROCESSABLE_ENTITY;
    "Member in debt", "The member owes {debt} points, which later grants settle first; until then nothing can be given away.";
    "会员有欠分", "该会员尚欠 {debt} 积分，后续发放将优先抵扣；结清之前不能转出。";

    HoldsOpen = "POINTS_HOLDS_OPEN", CONFLICT;
    "Holds open", "{points} points are held for orders under way. Capture or release those holds, then merge.";
    "存在未结束的冻结", "有 {points} 积分正被进行中的订单冻结，请先使用或释放后再合并。";

    AccountExists = "POINTS_ACCOUNT_EXISTS", CONFLICT;
    "Account exists", "The member's account has transactions here already; only one without any can be imported.";
    "账户已存在", "该会员的账户在此已有流水，只能导入尚无流水的账户。";

    ImportUnreconciled = "POINTS_IMPORT_UNRECONCILED", CONFLICT;
    "Import does not reconcile", "What was sent of the account does not add up to its balance. Import it again.";
    "导入无法对账", "所提交的账户内容与其余额不符，请重新导入。";

    RemindersTold = "POINTS_REMINDERS_TOLD", CONFLICT;
    "Reminders told", "Somebody else has told these reminders. Read how far they have come, and go on from there.";
    "提醒已发送", "这些到期提醒已由其他节点发出，请读取最新进度后继续。";

    AdjustmentNotFound = "POINTS_ADJUSTMENT_NOT_FOUND", NOT_FOUND;
    "Adjustment not found", "There is no such adjustment that needs an approval. GET /v1/points-adjustments lists them.";
    "调整单不存在", "该待审批的调整单不存在，可通过 GET /v1/points-adjustments 查询。";

    AdjustmentClosed = "POINTS_ADJUSTMENT_CLOSED", CONFLICT;
    "Adjustment decided", "The adjustment is {status} already; it is decided only once.";
    "调整单已处理", "该调整单的状态为 {status}，只能处理一次。";

    OwnAdjustment = "POINTS_ADJUSTMENT_OWN", FORBIDDEN;
    "Own adjustment", "The key that asked for an adjustment cannot approve it. Another operator's key can.";
    "不能审批自己的调整", "发起调整的密钥不能审批该调整，请使用其他运营人员的密钥。";

    ApprovalNeeded = "POINTS_APPROVAL_NEEDED", FORBIDDEN;
    "Approval needed", "More than {above} points by hand need an approval: POST /v1/members/{member_id}/points/adjustments asks for one.";
    "需要审批", "手工调整超过 {above} 积分需要审批，请通过 POST /v1/members/{member_id}/points/adjustments 提交。";

    AdjustmentLimit = "POINTS_ADJUSTMENT_LIMIT", FORBIDDEN;
    "Adjustment limit", "This key may adjust at most {limit} points at a time. Use a key with a higher limit.";
    "超出调整上限", "该密钥单次最多可调整 {limit} 积分，请使用上限更高的密钥。";

    CheckInDisabled = "POINTS_CHECK_IN_DISABLED", UNPROCESSABLE_ENTITY;
    "Check-ins are off", "The tenant's points rule has check-ins switched off.";
    "签到未启用", "租户的积分规则未启用签到。";

    CheckInOutOfOrder = "POINTS_CHECK_IN_OUT_OF_ORDER", CONFLICT;
    "Check-in out of order", "The member has checked in on {latest} already; days come in their order.";
    "签到日期倒序", "该会员已在 {latest} 签到，签到日期不能早于该日。";

    CheckInDayNotPast = "POINTS_CHECK_IN_DAY_NOT_PAST", UNPROCESSABLE_ENTITY;
    "Day not past", "Only a day before today, {today} where the shop is, can be made up. Leave `day` out to check in today.";
    "日期未过去", "只能补签今天（店铺所在地 {today}）之前的日期。如需今日签到，请不要发送 `day`。";

    MakeUpDisabled = "POINTS_MAKE_UP_DISABLED", UNPROCESSABLE_ENTITY;
    "Days cannot be made up", "The tenant's points rule lets no missed day be made up. An operator can set `check_in.make_up_days`.";
    "补签未启用", "租户的积分规则未启用补签，可由运营人员设置 `check_in.make_up_days`。";

    MakeUpTooLate = "POINTS_MAKE_UP_TOO_LATE", UNPROCESSABLE_ENTITY;
    "Day too long ago", "The earliest day that can still be made up is {earliest}.";
    "日期过早", "目前最早可补签 {earliest}。";

    MakeUpLimitReached = "POINTS_MAKE_UP_LIMIT_REACHED", UNPROCESSABLE_ENTITY;
    "Made up often enough", "The member has made up {limit} days of that month, which is the limit.";
    "补签次数已用完", "该会员在该月已补签 {limit} 天，达到上限。";

    TaskNotFound = "POINTS_TASK_NOT_FOUND", NOT_FOUND;
    "Task not found", "There is no such points task.";
    "任务不存在", "该积分任务不存在。";

    TaskExists = "POINTS_TASK_EXISTS", CONFLICT;
    "Task key taken", "A task has, or had, this key. Choose another one.";
    "任务键已被占用", "该任务键已被使用（包括已删除的任务），请更换。";

    TaskVersionStale = "POINTS_TASK_VERSION_STALE", PRECONDITION_FAILED;
    "Task version stale", "The task was changed meanwhile; its version is {current}. Read it again.";
    "任务版本过期", "任务已被修改，当前版本为 {current}，请重新读取。";

    TaskDisabled = "POINTS_TASK_DISABLED", UNPROCESSABLE_ENTITY;
    "Task disabled", "The task is switched off.";
    "任务已停用", "该任务已停用。";

    TaskNotStarted = "POINTS_TASK_NOT_STARTED", UNPROCESSABLE_ENTITY;
    "Task not started", "The task starts at {starts_at}.";
    "任务未开始", "该任务将于 {starts_at} 开始。";

    TaskEnded = "POINTS_TASK_ENDED", UNPROCESSABLE_ENTITY;
    "Task ended", "The task ended at {ended_at}.";
    "任务已结束", "该任务已于 {ended_at} 结束。";

    TaskPeriodLimitReached = "POINTS_TASK_PERIOD_LIMIT_REACHED", UNPROCESSABLE_ENTITY;
    "Task done for this period", "The member has completed the task {limit} times in this period, which is the limit.";
    "本周期任务已完成", "该会员本周期已完成该任务 {limit} 次，达到上限。";

    TaskLimitReached = "POINTS_TASK_LIMIT_REACHED", UNPROCESSABLE_ENTITY;
    "Task limit reached", "The member has completed the task {limit} times, which is the limit.";
    "任务次数已用完", "该会员已完成该任务 {limit} 次，达到上限。";

    TaskPrerequisitesMissing = "POINTS_TASK_PREREQUISITES_MISSING", UNPROCESSABLE_ENTITY;
    "Other tasks come first", "The task requires others that the member has not completed yet: {missing}. Report those first.";
    "前置任务未完成", "该任务要求先完成其他任务，该会员尚未完成：{missing}。请先上报这些任务。";

    TaskRequiresUnknown = "POINTS_TASK_REQUIRES_UNKNOWN", UNPROCESSABLE_ENTITY;
    "Required task unknown", "`requires` names tasks that do not exist: {missing}. Create them first, or leave them out.";
    "前置任务不存在", "`requires` 中的任务不存在：{missing}。请先创建这些任务，或将其移除。";

    TaskRequiresItself = "POINTS_TASK_REQUIRES_ITSELF", UNPROCESSABLE_ENTITY;
    "Task requires itself",
    "`requires` would go round in a circle: {through} requires this task, directly or through others. Leave it out.";
    "前置任务循环", "`requires` 形成循环：{through} 直接或间接要求本任务。请将其移除。";

    TaskRequiresTooMany = "POINTS_TASK_REQUIRES_TOO_MANY", UNPROCESSABLE_ENTITY;
    "Too many required tasks",
    "`requires` leads to more than {most} tasks, counting those that its tasks require in turn. Name fewer.";
    "前置任务过多", "`requires` 连同其间接要求的任务超过 {most} 个，请减少。";

    CaptureExceedsHold = "POINTS_CAPTURE_EXCEEDS_HOLD", UNPROCESSABLE_ENTITY;
    "Capture exceeds hold", "The hold has {held} points; at most that many can be captured.";
    "扣减超出冻结", "该冻结共 {held} 积分，最多可扣减此数量。";

    NotReversible = "POINTS_NOT_REVERSIBLE", CONFLICT;
    "Not reversible", "Only grants, debits and captures can be reversed; this transaction is none.";
    "不可冲正", "仅发放、扣减和冻结扣减可以冲正，该流水不属于其中任何一种。";

    ReversalExceeds = "POINTS_REVERSAL_EXCEEDS", UNPROCESSABLE_ENTITY;
    "Reversal exceeds transaction", "{left} points of this transaction are left to reverse.";
    "冲正超出流水", "该流水还可冲正 {left} 积分。";
}

impl Code {
    pub fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }
}

/// The languages of titles and details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English = 0,
    Chinese = 1,
}

impl Language {
    /// The preferred of our languages by an `Accept-Language` header; English when it names neither.
    pub fn of(header: Option<&HeaderValue>) -> Language {
        let Some(text) = header.and_then(|value| value.to_str().ok()) else { return Language::English };
        let mut best = (Language::English, 0.0);
        for range in text.split(',') {
            let mut parts = range.split(';');
            let tag = parts.next().unwrap_or_default().trim().as_bytes();
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f32);
            let language = match tag.get(..2) {
                Some(start) if start.eq_ignore_ascii_case(b"zh") => Language::Chinese,
                Some(start) if start.eq_ignore_ascii_case(b"en") => Language::English,
                _ => continue,
            };
            if quality > best.1 {
                best = (language, quality);
            }
        }
        best.0
    }

    pub fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Chinese => "zh",
        }
    }
}

/// A refusal or a failure, on its way to the edge.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    values: Vec<(&'static str, String)>,
    errors: Vec<FieldError>,
    /// The coupon by which an order is refused.
    coupon_id: Option<String>,
    /// For the log only.
    cause: Option<String>,
}

impl Problem {
    pub fn new(code: Code) -> Self {
        Problem { code, values: Vec::new(), errors: Vec::new(), coupon_id: None, cause: None }
    }

    /// Adds the headers that go with the status. Callers of an overloaded server are told different times, so that they do
    /// not come back all at once.
    pub fn add_headers(&self, status: StatusCode, headers: &mut HeaderMap) {
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(rand::random_range(1..=3_u64)));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = self.values.iter().find(|(name, _)| *name == "seconds");
                let seconds = seconds.and_then(|(_, text)| text.parse().ok()).unwrap_or(1_u64).max(1);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
    }

    /// Gives `{name}` of the code's detail its value.
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.values.push((name, value.to_string()));
        self
    }

    /// A fault of ours: the caller learns no more than that there was one, the log the rest.
    pub fn internal(cause: impl Display) -> Self {
        Problem { cause: Some(cause.to_string()), ..Problem::new(Code::Internal) }
    }

    /// Logs the cause of a fault under the id by which the caller asks about it. Once, where the answer is written.
    pub fn log_cause(&self, request_id: &str) {
        if let Some(cause) = &self.cause {
            tracing::error!(request_id, cause, "a request failed");
        }
    }

    /// One bad field.
    pub fn field(name: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let mut errors = FieldErrors::default();
        errors.add(name, message, remedy);
        errors.into()
    }

    fn with_time(self, name: &'static str, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.with(name, Time(at)),
            None => self.with(name, "-"),
        }
    }

    /// The values that the detail tells, by name.
    pub fn values(&self) -> &[(&'static str, String)] {
        &self.values
    }

    /// What happened and what helps.
    pub fn detail(&self, language: Language) -> Cow<'static, str> {
        fill(self.code.entry().detail[language as usize], &self.values)
    }

    /// The body, as RFC 9457 has it.
    pub fn body<'a>(&'a self, language: Language, request_id: &'a str) -> ProblemBody<'a> {
        let entry = self.code.entry();
        ProblemBody {
            kind: entry.kind,
            title: entry.title[language as usize],
            status: entry.status.as_u16(),
            code: entry.code,
            detail: self.detail(language),
            request_id,
            errors: &self.errors,
            coupon_id: self.coupon_id.as_deref(),
        }
    }
}

/// Puts the values in the places of their names.
fn fill(text: &'static str, values: &[(&'static str, String)]) -> Cow<'static, str> {
    if values.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut filled = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else { break };
        filled.push_str(before);
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => filled.push_str(value),
            None => {
                let _ = write!(filled, "{{{name}}}");
            }
        }
        rest = behind;
    }
    filled.push_str(rest);
    Cow::Owned(filled)
}

/// A problem as sent.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Where the code is explained.
    #[serde(rename = "type")]
    #[schema(value_type = String, format = "uri-reference", example = "/docs/errors#COUPON_SOLD_OUT")]
    kind: &'a str,
    #[schema(value_type = String)]
    title: &'a str,
    status: u16,
    /// Stable; to be acted on.
    #[schema(value_type = String, example = "COUPON_SOLD_OUT")]
    code: &'a str,
    /// What happened and what helps, in the language of `Accept-Language` (`en` or `zh`).
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    #[schema(value_type = String)]
    request_id: &'a str,
    /// Every bad field of a 400; empty otherwise.
    #[schema(value_type = Vec<FieldError>)]
    errors: &'a [FieldError],
    /// The coupon that refuses an order; only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::CouponId>)]
    coupon_id: Option<&'a str>,
}

/// Leaves the body to the edge.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.entry().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<FieldErrors> for Problem {
    fn from(errors: FieldErrors) -> Self {
        Problem { errors: errors.into_list(), ..Problem::new(Code::InvalidRequest) }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        use scrip_domain::points::{HoldStatus, MAX_TOTAL_POINTS};
        let of = Problem::new;
        match rejection {
            Rejection::TemplateNotFound => of(Code::TemplateNotFound),
            Rejection::CouponNotFound => of(Code::CouponNotFound),
            Rejection::HoldNotFound => of(Code::HoldNotFound),
            Rejection::TransactionNotFound => of(Code::TransactionNotFound),
            Rejection::TenantNotFound => of(Code::TenantNotFound),
            Rejection::TenantIsProgram => of(Code::TenantIsProgram),
            Rejection::ProgramExists => of(Code::ProgramExists),
            Rejection::ProgramLimitReached { most } => of(Code::ProgramLimitReached).with("most", most),
            Rejection::KeyNotFound => of(Code::KeyNotFound),
            Rejection::JobNotFound => of(Code::JobNotFound),
            Rejection::JobLeaseLost => of(Code::JobLeaseLost),
            Rejection::WebhookNotFound => of(Code::WebhookNotFound),
            Rejection::BulkNotFound => of(Code::BulkNotFound),
            Rejection::BulkMoved => of(Code::BulkMoved),
            Rejection::WindowsAnnounced => of(Code::WindowsAnnounced),
            Rejection::TemplateVersionStale { current } => of(Code::TemplateVersionStale).with("current", current),
            Rejection::TemplateInUse { claimed } => of(Code::TemplateInUse).with("claimed", claimed),
            Rejection::TemplateHasCodes { batches } => of(Code::TemplateHasCodes).with("batches", batches),
            Rejection::TemplateImported => of(Code::TemplateImported),
            Rejection::TemplateArchived => of(Code::TemplateArchived),
            Rejection::BudgetBelowCommitted { committed } => {
                of(Code::BudgetBelowCommitted).with("committed", committed)
            }
            Rejection::StockUnlimited => of(Code::StockUnlimited),
            Rejection::StockOutOfRange { remaining, max_total } => {
                of(Code::StockOutOfRange).with("remaining", remaining).with("max_total", max_total)
            }
            Rejection::TemplateDisabled => of(Code::TemplateDisabled),
            Rejection::ClaimNotStarted { starts_at } => of(Code::ClaimNotStarted).with_time("starts_at", starts_at),
            Rejection::ClaimEnded { ended_at, .. } => of(Code::ClaimEnded).with_time("ended_at", ended_at),
            Rejection::ValidityEnded { ended_at } => of(Code::ValidityEnded).with("ended_at", Time(ended_at)),
            Rejection::MemberLevel { allowed } => of(Code::MemberLevel).with("allowed", allowed.join(", ")),
            Rejection::ClaimLimitReached { limit, .. } => of(Code::LimitReached).with("limit", limit),
            Rejection::PeriodClosed { period, since } => {
                of(Code::PeriodClosed).with("period", period.as_str()).with("since", Time(since))
            }
            Rejection::CapReached { period, cap, ends_at, .. } => {
                of(Code::CapReached).with("period", period.as_str()).with("cap", cap).with("ends_at", Time(ends_at))
            }
            Rejection::BudgetExhausted { budget, .. } => of(Code::BudgetExhausted).with("budget", budget),
            Rejection::SoldOut { total, .. } => of(Code::SoldOut).with("total", total),
            Rejection::CouponExpired { valid_until } => of(Code::CouponExpired).with("valid_until", Time(valid_until)),
            Rejection::CouponNotYetValid { valid_from } => {
                of(Code::CouponNotYetValid).with("valid_from", Time(valid_from))
            }
            Rejection::CouponLocked { order_id } => {
                of(Code::CouponLocked).with("order_id", order_id.as_ref().map_or("-", |id| id.as_str()))
            }
            Rejection::CouponNotLocked => of(Code::CouponNotLocked),
            Rejection::CouponUsed { order_id } => {
                of(Code::CouponUsed).with("order_id", order_id.as_ref().map_or("-", |id| id.as_str()))
            }
            Rejection::CouponNotUsed { status } => of(Code::CouponNotUsed).with("status", status.as_str()),
            Rejection::CouponNotReturnable => of(Code::CouponNotReturnable),
            Rejection::CouponRevoked => of(Code::CouponRevoked),
            Rejection::OrderMismatch => of(Code::OrderMismatch),
            Rejection::TransferToHolder => of(Code::TransferToHolder),
            Rejection::TemplateForPoints { price } => of(Code::TemplateForPoints).with("price", price),
            Rejection::TemplateNotForPoints => of(Code::TemplateNotForPoints),
            Rejection::CodeNotAccepted => of(Code::CouponCodeNotAccepted),
            Rejection::CodeInUse { uses } => of(Code::CouponCodeInUse).with("uses", uses),
            Rejection::CodeNotFound => of(Code::CouponCodeNotFound),
            Rejection::CodeBatchNotFound => of(Code::BatchNotFound),
            Rejection::CodeTaken => of(Code::CouponCodeTaken),
            Rejection::CodeRevoked => of(Code::CouponCodeRevoked),
            Rejection::CodeBatchOutOfStep { generated } => of(Code::BatchOutOfStep).with("generated", generated),
            Rejection::DeadlinePassed { field } => of(Code::DeadlinePassed).with("field", field),
            Rejection::CouponOutsideHours => of(Code::CouponOutsideHours),
            Rejection::CouponConditionUnmet => of(Code::CouponConditionUnmet),
            Rejection::CouponConditionFailed { cause } => of(Code::CouponConditionFailed).with("cause", cause),
            Rejection::CouponOutOfScope => of(Code::CouponOutOfScope),
            Rejection::CouponQuantity { min_quantity, eligible_quantity } => {
                of(Code::CouponQuantity).with("min_quantity", min_quantity).with("eligible_quantity", eligible_quantity)
            }
            Rejection::CouponBelowThreshold { min_amount, eligible_amount } => {
                of(Code::CouponBelowThreshold).with("min_amount", min_amount).with("eligible_amount", eligible_amount)
            }
            Rejection::CouponProductMissing => of(Code::CouponProductMissing),
            Rejection::CouponNotStackable { with } => of(Code::CouponNotStackable).with("with", with),
            Rejection::TooManyCoupons { most } => of(Code::TooManyCoupons).with("most", most),
            Rejection::CouponWithoutEffect => of(Code::CouponWithoutEffect),
            Rejection::OrderTooLarge { most } => of(Code::OrderTooLarge).with("most", most),
            Rejection::InOrder { coupon_id, reason } => {
                Problem { coupon_id: Some(coupon_id.to_string()), ..Problem::from(*reason) }
            }
            Rejection::OrderNotFound => of(Code::OrderNotFound),
            Rejection::OrderExists { status } => of(Code::OrderExists).with("status", status.as_str()),
            Rejection::QuoteExpired { expired_at } => of(Code::OrderQuoteExpired).with("expired_at", Time(expired_at)),
            Rejection::OrderClosed { status } => of(Code::OrderClosed).with("status", status.as_str()),
            Rejection::OrderExpired { expired_at, reason } => {
                of(Code::OrderExpired).with("expired_at", Time(expired_at)).with("reason", reason)
            }
            Rejection::OrderNotPaid { status } => of(Code::OrderNotPaid).with("status", status.as_str()),
            Rejection::OrderItemUnknown { item_id } => of(Code::OrderItemUnknown).with("item_id", item_id),
            Rejection::RefundExists => of(Code::RefundExists),
            Rejection::RefundExceeds { item_id, left } => {
                of(Code::RefundExceeds).with("item_id", item_id).with("left", left)
            }
            Rejection::RefundExceedsFreight { left } => of(Code::RefundExceedsFreight).with("left", left),
            Rejection::NothingToRefund => of(Code::NothingToRefund),
            Rejection::ManagedByOrder { order_id } => of(Code::ManagedByOrder).with("order_id", order_id),
            Rejection::CompensationNotFound => of(Code::CompensationNotFound),
            Rejection::CompensationClosed { status } => of(Code::CompensationClosed).with("status", status.as_str()),
            Rejection::PointsInsufficient { available, requested } => {
                of(Code::PointsInsufficient).with("available", available).with("requested", requested)
            }
            Rejection::PointsOverflow => of(Code::PointsOverflow).with("max", MAX_TOTAL_POINTS),
            Rejection::HoldClosed { status: HoldStatus::Expired } => of(Code::HoldExpired),
            Rejection::HoldClosed { status } => of(Code::HoldClosed).with("status", status.as_str()),
            Rejection::CaptureExceedsHold { held } => of(Code::CaptureExceedsHold).with("held", held),
            Rejection::HoldPending { available_from } => {
                of(Code::HoldPending).with("available_from", Time(available_from))
            }
            Rejection::ExpiresBeforeAvailable => of(Code::ExpiresBeforeAvailable),
            Rejection::AccountMerged { into } => of(Code::AccountMerged).with("into", into),
            Rejection::SameMember => of(Code::SameMember),
            Rejection::InDebt { debt } => of(Code::InDebt).with("debt", debt),
            Rejection::HoldsOpen { points } => of(Code::HoldsOpen).with("points", points),
            Rejection::AccountExists => of(Code::AccountExists),
            Rejection::ImportUnreconciled => of(Code::ImportUnreconciled),
            Rejection::AdjustmentNotFound => of(Code::AdjustmentNotFound),
            Rejection::AdjustmentClosed { status } => of(Code::AdjustmentClosed).with("status", status.as_str()),
            Rejection::OwnAdjustment => of(Code::OwnAdjustment),
            Rejection::ApprovalNeeded { above } => of(Code::ApprovalNeeded).with("above", above),
            Rejection::RemindersTold => of(Code::RemindersTold),
            Rejection::CheckInDisabled => of(Code::CheckInDisabled),
            Rejection::CheckInOutOfOrder { latest } => of(Code::CheckInOutOfOrder).with("latest", latest),
            Rejection::CheckInDayNotPast { today } => of(Code::CheckInDayNotPast).with("today", today),
            Rejection::MakeUpDisabled => of(Code::MakeUpDisabled),
            Rejection::MakeUpTooLate { earliest } => of(Code::MakeUpTooLate).with("earliest", earliest),
            Rejection::MakeUpLimitReached { limit } => of(Code::MakeUpLimitReached).with("limit", limit),
            Rejection::TaskNotFound => of(Code::TaskNotFound),
            Rejection::TaskExists => of(Code::TaskExists),
            Rejection::TaskVersionStale { current } => of(Code::TaskVersionStale).with("current", current),
            Rejection::TaskDisabled => of(Code::TaskDisabled),
            Rejection::TaskNotStarted { starts_at } => of(Code::TaskNotStarted).with_time("starts_at", starts_at),
            Rejection::TaskEnded { ended_at } => of(Code::TaskEnded).with_time("ended_at", ended_at),
            Rejection::TaskPeriodLimitReached { limit } => of(Code::TaskPeriodLimitReached).with("limit", limit),
            Rejection::TaskLimitReached { limit } => of(Code::TaskLimitReached).with("limit", limit),
            Rejection::TaskPrerequisitesMissing { missing } => {
                of(Code::TaskPrerequisitesMissing).with("missing", joined(&missing))
            }
            Rejection::TaskRequiresUnknown { missing } => {
                of(Code::TaskRequiresUnknown).with("missing", joined(&missing))
            }
            Rejection::TaskRequiresItself { through } => of(Code::TaskRequiresItself).with("through", through),
            Rejection::TaskRequiresTooMany { most } => of(Code::TaskRequiresTooMany).with("most", most),
            Rejection::NotReversible => of(Code::NotReversible),
            Rejection::ReversalExceeds { left } => of(Code::ReversalExceeds).with("left", left),
            Rejection::RulesVersionStale { current } => of(Code::RulesVersionStale).with("current", current),
            Rejection::RulesTooManyVersions { most } => of(Code::RulesTooManyVersions).with("most", most),
            Rejection::IdempotencyKeyReused => of(Code::IdempotencyKeyReused),
        }
    }
}

fn joined(keys: &[TaskKey]) -> String {
    keys.iter().map(TaskKey::as_str).collect::<Vec<_>>().join(", ")
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Busy => Problem::new(Code::Busy),
            SubmitError::Draining => Problem::new(Code::Draining),
            SubmitError::DeadlineExceeded => Problem::new(Code::DeadlineExceeded),
            SubmitError::Unavailable(_) => Problem::new(Code::StoreUnavailable),
            SubmitError::DiskFull => Problem::new(Code::DiskFull),
            SubmitError::OutcomeUnknown => Problem::new(Code::OutcomeUnknown),
            SubmitError::Fault(detail) => Problem::internal(detail),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                tracing::debug!(%error, "a read found the store unavailable");
                Problem::new(Code::StoreUnavailable)
            }
            StoreError::DiskFull(_) => Problem::new(Code::DiskFull),
            error => Problem::internal(error),
        }
    }
}

impl From<SweepError> for Problem {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::Store(error) => error.into(),
            SweepError::Submit(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scrip_domain::coupon::{CompensationStatus, CouponStatus};
    use scrip_domain::order::OrderStatus;
    use scrip_domain::points::HoldStatus;

    /// One of each variant. The match makes a new variant fail to compile here until it is listed.
    fn every_rejection() -> Vec<Rejection> {
        use Rejection::*;
        let at = Timestamp(0);
        let all = vec![
            TemplateNotFound,
            CouponNotFound,
            HoldNotFound,
            TransactionNotFound,
            TenantNotFound,
            KeyNotFound,
            TenantIsProgram,
            ProgramExists,
            ProgramLimitReached { most: 20 },
            JobNotFound,
            JobLeaseLost,
            WebhookNotFound,
            BulkNotFound,
            BulkMoved,
            WindowsAnnounced,
            TemplateVersionStale { current: 2 },
            TemplateInUse { claimed: 1 },
            TemplateHasCodes { batches: 1 },
            TemplateImported,
            TemplateArchived,
            BudgetBelowCommitted { committed: 1 },
            StockUnlimited,
            StockOutOfRange { remaining: 1, max_total: 2 },
            AdjustmentNotFound,
            AdjustmentClosed { status: scrip_domain::points::AdjustmentStatus::Approved },
            OwnAdjustment,
            ApprovalNeeded { above: 1 },
            TemplateForPoints { price: 1 },
            TemplateNotForPoints,
            TemplateDisabled,
            ClaimNotStarted { starts_at: Some(at) },
            ClaimEnded { ended_at: Some(at), version: 1 },
            ValidityEnded { ended_at: at },
            MemberLevel { allowed: vec!["GOLD".into()] },
            ClaimLimitReached { limit: 1, version: 1 },
            PeriodClosed { period: scrip_domain::time::CapPeriod::Day, since: at },
            CapReached { period: scrip_domain::time::CapPeriod::Week, cap: 1, ends_at: at, version: 1 },
            CouponNotReturnable,
            CodeInUse { uses: 1 },
            BudgetExhausted { budget: 1, version: 1 },
            SoldOut { total: 1, version: 1 },
            CouponExpired { valid_until: at },
            CouponNotYetValid { valid_from: at },
            CouponLocked { order_id: None },
            CouponNotLocked,
            CouponUsed { order_id: "o-1".parse().ok() },
            CouponNotUsed { status: CouponStatus::Available },
            CouponRevoked,
            OrderMismatch,
            TransferToHolder,
            CodeNotAccepted,
            CodeNotFound,
            CodeBatchNotFound,
            CodeTaken,
            CodeRevoked,
            CodeBatchOutOfStep { generated: 1 },
            DeadlinePassed { field: "expires_at" },
            CouponOutsideHours,
            CouponConditionUnmet,
            CouponConditionFailed { cause: "why".into() },
            CouponOutOfScope,
            CouponQuantity { min_quantity: 2, eligible_quantity: 1 },
            CouponBelowThreshold { min_amount: 2, eligible_amount: 1 },
            CouponProductMissing,
            CouponNotStackable { with: scrip_domain::CouponId(uuid::Uuid::nil()) },
            TooManyCoupons { most: 1 },
            CouponWithoutEffect,
            OrderTooLarge { most: 1 },
            InOrder { coupon_id: scrip_domain::CouponId(uuid::Uuid::nil()), reason: Box::new(CouponRevoked) },
            OrderNotFound,
            OrderExists { status: OrderStatus::Paid },
            OrderClosed { status: OrderStatus::Cancelled },
            QuoteExpired { expired_at: at },
            OrderExpired { expired_at: at, reason: "COUPON_USED" },
            OrderNotPaid { status: OrderStatus::Reserved },
            OrderItemUnknown { item_id: "i".into() },
            RefundExists,
            RefundExceeds { item_id: "i".into(), left: 1 },
            RefundExceedsFreight { left: 1 },
            NothingToRefund,
            ManagedByOrder { order_id: "o".into() },
            CompensationNotFound,
            CompensationClosed { status: CompensationStatus::Resolved },
            PointsInsufficient { available: 1, requested: 2 },
            PointsOverflow,
            HoldClosed { status: HoldStatus::Released },
            HoldClosed { status: HoldStatus::Expired },
            CaptureExceedsHold { held: 1 },
            NotReversible,
            ReversalExceeds { left: 1 },
            RulesVersionStale { current: 2 },
            RulesTooManyVersions { most: 1 },
            HoldPending { available_from: at },
            ExpiresBeforeAvailable,
            AccountMerged { into: "m-2".parse().expect("a member") },
            SameMember,
            InDebt { debt: 1 },
            HoldsOpen { points: 1 },
            AccountExists,
            ImportUnreconciled,
            RemindersTold,
            CheckInDisabled,
            CheckInOutOfOrder { latest: scrip_domain::Day(0) },
            CheckInDayNotPast { today: scrip_domain::Day(0) },
            MakeUpDisabled,
            MakeUpTooLate { earliest: scrip_domain::Day(0) },
            MakeUpLimitReached { limit: 1 },
            TaskNotFound,
            TaskExists,
            TaskVersionStale { current: 2 },
            TaskDisabled,
            TaskNotStarted { starts_at: Some(at) },
            TaskEnded { ended_at: Some(at) },
            TaskPeriodLimitReached { limit: 1 },
            TaskLimitReached { limit: 1 },
            TaskPrerequisitesMissing { missing: vec!["t-1".parse().expect("a key"), "t-2".parse().expect("a key")] },
            TaskRequiresUnknown { missing: vec!["t-1".parse().expect("a key")] },
            TaskRequiresItself { through: "t-1".parse().expect("a key") },
            TaskRequiresTooMany { most: 100 },
            IdempotencyKeyReused,
        ];
        for rejection in &all {
            match rejection {
                TemplateNotFound | CouponNotFound | HoldNotFound | TransactionNotFound | TenantNotFound
                | KeyNotFound | WebhookNotFound | JobNotFound | JobLeaseLost | BulkNotFound | BulkMoved
                | WindowsAnnounced | StockUnlimited | TemplateDisabled | CouponNotLocked | CouponRevoked
                | OrderMismatch | PointsOverflow | NotReversible | IdempotencyKeyReused => {}
                TenantIsProgram | ProgramExists | ProgramLimitReached { .. } => {}
                TemplateVersionStale { .. } | TemplateInUse { .. } | StockOutOfRange { .. } => {}
                ClaimNotStarted { .. } | ClaimEnded { .. } | ValidityEnded { .. } | MemberLevel { .. } => {}
                ClaimLimitReached { .. } | SoldOut { .. } | CouponExpired { .. } | CouponNotYetValid { .. } => {}
                CouponLocked { .. } | CouponUsed { .. } | CouponNotUsed { .. } | DeadlinePassed { .. } => {}
                PointsInsufficient { .. } | HoldClosed { .. } | CaptureExceedsHold { .. } => {}
                InOrder { .. } | OrderNotFound | OrderExists { .. } | OrderClosed { .. } | OrderExpired { .. } => {}
                OrderNotPaid { .. } | OrderItemUnknown { .. } | RefundExists | RefundExceeds { .. } => {}
                RefundExceedsFreight { .. } | NothingToRefund | ManagedByOrder { .. } | CompensationNotFound => {}
                CompensationClosed { .. } | QuoteExpired { .. } => {}
                ReversalExceeds { .. } | RulesVersionStale { .. } | RulesTooManyVersions { .. } => {}
                CouponOutsideHours | CouponConditionUnmet | CouponConditionFailed { .. } => {}
                HoldPending { .. } | ExpiresBeforeAvailable | AccountMerged { .. } | SameMember => {}
                InDebt { .. } | HoldsOpen { .. } | CheckInDisabled | CheckInOutOfOrder { .. } => {}
                CheckInDayNotPast { .. } | MakeUpDisabled | MakeUpTooLate { .. } | MakeUpLimitReached { .. } => {}
                AccountExists | ImportUnreconciled | RemindersTold => {}
                TaskNotFound | TaskExists | TaskVersionStale { .. } | TaskDisabled => {}
                TaskNotStarted { .. } | TaskEnded { .. } => {}
                TaskPeriodLimitReached { .. } | TaskLimitReached { .. } => {}
                TaskPrerequisitesMissing { .. } | TaskRequiresUnknown { .. } => {}
                TaskRequiresItself { .. } | TaskRequiresTooMany { .. } => {}
                CouponOutOfScope | CouponProductMissing | CouponWithoutEffect => {}
                CouponQuantity { .. } | CouponBelowThreshold { .. } | CouponNotStackable { .. } => {}
                TooManyCoupons { .. } | OrderTooLarge { .. } => {}
                TemplateForPoints { .. } | TemplateNotForPoints => {}
                AdjustmentNotFound | AdjustmentClosed { .. } | OwnAdjustment | ApprovalNeeded { .. } => {}
                TemplateHasCodes { .. } | TemplateImported | TemplateArchived | BudgetBelowCommitted { .. } => {}
                PeriodClosed { .. } | CapReached { .. } | BudgetExhausted { .. } | TransferToHolder => {}
                CouponNotReturnable | CodeInUse { .. } => {}
                CodeNotAccepted | CodeNotFound | CodeBatchNotFound | CodeTaken | CodeRevoked => {}
                CodeBatchOutOfStep { .. } => {}
            }
        }
        all
    }

    #[test]
    fn every_rejection_has_its_own_code_and_full_texts() {
        for rejection in every_rejection() {
            let code = rejection.code();
            let problem = Problem::from(rejection);
            assert_eq!(problem.code.entry().code, code);
            for (name, _) in &problem.values {
                for detail in problem.code.entry().detail {
                    assert!(detail.contains(&format!("{{{name}}}")), "{code} does not tell {name}: {detail}");
                }
            }
            for language in [Language::English, Language::Chinese] {
                let body = problem.body(language, "r");
                let paths = ["{member_id}", "{tenant_id}", "{order_id}", "{template_id}"]
                    .iter()
                    .fold(body.detail.to_string(), |text, path| text.replace(path, ""));
                assert!(!paths.contains('{'), "{code}: {paths}");
            }
        }
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.entry().code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }

    #[test]
    fn statuses_follow_the_documented_classes() {
        for rejection in every_rejection() {
            let problem = Problem::from(rejection.clone());
            let (code, status) = (rejection.code(), problem.code.entry().status.as_u16());
            let expected: &[u16] = match code {
                code if code.ends_with("_NOT_FOUND") => &[404],
                code if code.ends_with("_VERSION_STALE") => &[412],
                // What another key may do.
                "POINTS_ADJUSTMENT_OWN" | "POINTS_APPROVAL_NEEDED" => &[403],
                _ => &[409, 422],
            };
            assert!(expected.contains(&status), "{code} is {status}");
        }
    }

    #[test]
    fn the_language_follows_the_preference() {
        let of = |text: &'static str| Language::of(Some(&HeaderValue::from_static(text)));
        assert_eq!(of("zh-CN,zh;q=0.9,en;q=0.8"), Language::Chinese);
        assert_eq!(of("en-GB, zh;q=0.5"), Language::English);
        assert_eq!(of("fr, zh;q=0.3, en;q=0.2"), Language::Chinese);
        assert_eq!(of("de"), Language::English);
        assert_eq!(Language::of(None), Language::English);
    }
}
