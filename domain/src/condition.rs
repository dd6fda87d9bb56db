//! Conditions: short CEL expressions over the order and the member, written by operators into templates and into the
//! campaigns of the points rules.
//!
//! ```text
//! order:    amount, freight, quantity, hour: int   weekday: string   products, categories: list(string)
//!           lines: list of {item_id, product_id, sku_id: string, category_ids: list(string), unit_price, quantity, amount: int}
//! member:   level: string
//! eligible: amount, quantity: int                  the goods the coupon, or the campaign, applies to
//! order.attributes, member.attributes              what the caller sends: strings, integers, truth values
//! ```
//!
//! An expression is checked when it is written: names, fields and types, each error with its position. Only attributes are
//! unknown until an order comes; what fails then (one is missing, or of another type) makes the coupon not apply, with the
//! cause, and the campaign not hold. The crate `cel` parses and evaluates; the check is ours, since the crate has none, and
//! admits less than the language has: no decimals, no dates, no regular expressions, no macro inside another.
//!
//! Bounds: the length, and, since the parser descends recursively, the brackets and operators. Macros go over the lines of an
//! order at most, and not inside each other, so the work is at most expression times lines.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::ast::{CallExpr, Expr, LiteralValue, SourceInfo, operators};
use cel::common::types::{CelBool, CelInt, CelList, CelMap, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, IdedExpr, ParseErrors, Program, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pricing::{Attributes, Basket, Line};

/// The longest expression, in characters.
pub const MAX_LENGTH: usize = 500;
const MAX_BRACKETS: usize = 24;
const MAX_OPERATORS: usize = 100;

/// An expression that is true or false of an order. Compiled once, with all its clones, and at the latest when it is first
/// asked.
#[derive(Clone)]
pub struct Condition {
    source: String,
    program: Arc<OnceLock<Option<Program>>>,
}

/// Why an expression is no condition, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionError {
    /// The first character is 1.
    pub position: usize,
    pub message: String,
    pub remedy: String,
}

impl Condition {
    /// # Errors
    /// The first thing that is wrong with the expression.
    pub fn compile(source: &str) -> Result<Condition, ConditionError> {
        check(source)?;
        let program = ENVIRONMENT.compile(source).map_err(|errors| unreadable(source, &errors))?;
        Ok(Condition { source: source.to_owned(), program: Arc::new(OnceLock::from(Some(program))) })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the condition holds for an order of which goods of `amount` are eligible, `quantity` units.
    ///
    /// # Errors
    /// Why that cannot be said, in English.
    pub fn holds(&self, facts: &Facts<'_>, amount: i64, quantity: i64) -> Result<bool, String> {
        let compile = || ENVIRONMENT.compile(&self.source).ok();
        let program = self.program.get_or_init(compile).as_ref().ok_or("the expression cannot be read")?;
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.set_variable_resolver(facts);
        context.add_variable_as_val("eligible.amount", integer(amount));
        context.add_variable_as_val("eligible.quantity", integer(quantity));
        match program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("the result is neither true nor false".into()),
            Err(ExecutionError::NoSuchKey(name)) => Err(format!("the attribute `{name}` is missing")),
            Err(ExecutionError::NoSuchOverload(_) | ExecutionError::ValuesNotComparable(..)) => {
                Err("an attribute is of another type".into())
            }
            Err(ExecutionError::Overflow(..)) => Err("a number is too large".into()),
            Err(ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_)) => {
                Err("a division by zero".into())
            }
            Err(ExecutionError::IndexOutOfBounds(_)) => Err("a list is too short".into()),
            Err(_) => Err("the expression cannot be computed for this order".into()),
        }
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Condition {}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

/// Reads without compiling: what is stored was checked when it was written.
impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Condition { source: String::deserialize(deserializer)?, program: Arc::default() })
    }
}

/// What conditions may ask about an order. A field becomes a value of the language when the first condition asks for it: most
/// conditions compare a number or two, and an order has up to 200 lines.
pub struct Facts<'a> {
    basket: &'a Basket,
    amount: i64,
    lines: OnceLock<CelList<'a>>,
    products: OnceLock<CelList<'a>>,
    categories: OnceLock<CelList<'a>>,
    order_attributes: OnceLock<CelMap<'a>>,
    member_attributes: OnceLock<CelMap<'a>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of(basket: &'a Basket, amount: i64) -> Facts<'a> {
        Facts {
            basket,
            amount,
            lines: OnceLock::new(),
            products: OnceLock::new(),
            categories: OnceLock::new(),
            order_attributes: OnceLock::new(),
            member_attributes: OnceLock::new(),
        }
    }
}

/// The evaluator asks for the longest name first: `order.amount` before `order`.
impl VariableResolver for Facts<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let basket = self.basket;
        Some(match name {
            "order.amount" => CowVal::owned(CelInt::from(self.amount)),
            "order.freight" => CowVal::owned(CelInt::from(basket.freight)),
            "order.quantity" => CowVal::owned(CelInt::from(basket.lines.iter().map(|line| line.quantity).sum::<i64>())),
            "order.hour" => CowVal::owned(CelInt::from(i64::from(basket.local_time.minute / 60))),
            "order.weekday" => CowVal::owned(CelString::from(basket.local_time.weekday().as_str())),
            "order.products" => CowVal::Borrowed(
                self.products.get_or_init(|| texts(basket.lines.iter().map(|line| line.product_id.as_str()))),
            ),
            "order.categories" => CowVal::Borrowed(
                self.categories
                    .get_or_init(|| texts(basket.lines.iter().flat_map(|line| &line.category_ids).map(String::as_str))),
            ),
            "order.lines" => CowVal::Borrowed(
                self.lines
                    .get_or_init(|| CelList::from(basket.lines.iter().map(|one| boxed(line(one))).collect::<Vec<_>>())),
            ),
            "order.attributes" => {
                CowVal::Borrowed(self.order_attributes.get_or_init(|| attributes(&basket.attributes)))
            }
            "member.level" => CowVal::owned(CelString::from(basket.member_level.as_deref().unwrap_or_default())),
            "member.attributes" => {
                CowVal::Borrowed(self.member_attributes.get_or_init(|| attributes(&basket.member_attributes)))
            }
            _ => return None,
        })
    }
}

fn boxed<'a>(value: impl Val + 'a) -> Box<dyn Val + 'a> {
    Box::new(value)
}

fn text<'a>(text: &'a str) -> Box<dyn Val + 'a> {
    boxed(CelString::from(text))
}

fn integer<'a>(number: i64) -> Box<dyn Val + 'a> {
    boxed(CelInt::from(number))
}

fn texts<'a>(names: impl Iterator<Item = &'a str>) -> CelList<'a> {
    CelList::from(names.map(text).collect::<Vec<_>>())
}

fn line(line: &Line) -> CelMap<'_> {
    let fields: [(&str, Box<dyn Val + '_>); 7] = [
        ("item_id", text(&line.item_id)),
        ("product_id", text(&line.product_id)),
        ("sku_id", text(line.sku_id.as_deref().unwrap_or_default())),
        ("category_ids", boxed(texts(line.category_ids.iter().map(String::as_str)))),
        ("unit_price", integer(line.unit_price)),
        ("quantity", integer(line.quantity)),
        ("amount", integer(line.unit_price * line.quantity)),
    ];
    CelMap::from(fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<HashMap<_, _>>())
}

/// Attributes that are neither texts, integers nor truth values are left out, as if they had not been sent.
fn attributes(attributes: &Attributes) -> CelMap<'_> {
    let values = attributes.iter().filter_map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(value) => text(value),
            serde_json::Value::Bool(truth) => boxed(CelBool::from(*truth)),
            serde_json::Value::Number(number) => integer(number.as_i64()?),
            _ => return None,
        };
        Some((name.as_str().into(), value))
    });
    CelMap::from(values.collect::<HashMap<_, _>>())
}

/// With macros, which evaluation needs.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
/// Without macros, which then stay in the expression as they were written, each with its position.
static PLAIN: LazyLock<Env> = LazyLock::new(|| Env::default().with_stdlib());

#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    Bool,
    Int,
    Text,
    List(Box<Type>),
    Object(&'static Fields),
    Attributes,
    /// Known only when an order comes: an attribute.
    Any,
}

#[derive(Debug, PartialEq, Eq)]
struct Fields {
    name: &'static str,
    fields: &'static [(&'static str, Field)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Int,
    Text,
    Texts,
    Lines,
    Attributes,
}

static ORDER: Fields = Fields {
    name: "order",
    fields: &[
        ("amount", Field::Int),
        ("freight", Field::Int),
        ("quantity", Field::Int),
        ("hour", Field::Int),
        ("weekday", Field::Text),
        ("products", Field::Texts),
        ("categories", Field::Texts),
        ("lines", Field::Lines),
        ("attributes", Field::Attributes),
    ],
};
static MEMBER: Fields = Fields { name: "member", fields: &[("level", Field::Text), ("attributes", Field::Attributes)] };
static ELIGIBLE: Fields = Fields { name: "eligible", fields: &[("amount", Field::Int), ("quantity", Field::Int)] };
static LINE: Fields = Fields {
    name: "a line",
    fields: &[
        ("item_id", Field::Text),
        ("product_id", Field::Text),
        ("sku_id", Field::Text),
        ("category_ids", Field::Texts),
        ("unit_price", Field::Int),
        ("quantity", Field::Int),
        ("amount", Field::Int),
    ],
};

impl Type {
    fn list(of: Type) -> Type {
        Type::List(Box::new(of))
    }

    fn of_field(field: Field) -> Type {
        match field {
            Field::Int => Type::Int,
            Field::Text => Type::Text,
            Field::Texts => Type::list(Type::Text),
            Field::Lines => Type::list(Type::Object(&LINE)),
            Field::Attributes => Type::Attributes,
        }
    }

    /// Whether values of both may be the same.
    fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Any, Type::Any | Type::Bool | Type::Int | Type::Text) => true,
            (Type::Bool | Type::Int | Type::Text, Type::Any) => true,
            (Type::List(one), Type::List(two)) => **one == Type::Any || **two == Type::Any || one.fits(two),
            (Type::Object(_) | Type::Attributes, _) => false,
            (one, two) => one == two,
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Type::Bool => f.write_str("true or false"),
            Type::Int => f.write_str("an integer"),
            Type::Text => f.write_str("a string"),
            Type::List(of) => write!(f, "a list of {of}"),
            Type::Object(fields) => f.write_str(fields.name),
            Type::Attributes => f.write_str("attributes"),
            Type::Any => f.write_str("an attribute"),
        }
    }
}

fn check(source: &str) -> Result<(), ConditionError> {
    let error = |position: usize, message: String, remedy: String| Err(ConditionError { position, message, remedy });
    let length = source.chars().count();
    if length > MAX_LENGTH {
        let remedy = format!("Send at most {MAX_LENGTH}.");
        return error(MAX_LENGTH + 1, format!("has {length} characters"), remedy);
    }
    for (signs, most, what) in [("([{", MAX_BRACKETS, "brackets"), (".+-*/%?:!<>=&|", MAX_OPERATORS, "operators")] {
        let mut places = source.chars().enumerate().filter(|(_, sign)| signs.contains(*sign));
        if let Some((index, _)) = places.nth(most) {
            return error(index + 1, format!("has more than {most} {what}"), "Send a shorter expression.".into());
        }
    }
    let (expression, info) =
        PLAIN.parser().parse_with_source_info(source).map_err(|errors| unreadable(source, &errors))?;
    let mut checker = Checker { info, variables: Vec::new() };
    match checker.type_of(&expression)? {
        Type::Bool | Type::Any => Ok(()),
        other => Err(checker.error(&expression, format!("gives {other}"), "Send a comparison.")),
    }
}

fn unreadable(source: &str, errors: &ParseErrors) -> ConditionError {
    let (position, message) = match errors.errors.first() {
        Some(error) => {
            let (line, column) = (usize::try_from(error.pos.0).unwrap_or(1), usize::try_from(error.pos.1).unwrap_or(1));
            let before: usize =
                source.split_inclusive('\n').take(line.max(1) - 1).map(|line| line.chars().count()).sum();
            let message = error.msg.trim_start_matches("Syntax error: ");
            (before + column.max(1), message.split(" expecting ").next().unwrap_or(message).to_owned())
        }
        None => (1, "cannot be read".into()),
    };
    ConditionError { position, message, remedy: "Send a CEL expression like order.amount > 10000.".into() }
}

type Checked<T> = Result<T, ConditionError>;

struct Checker {
    info: SourceInfo,
    /// Those of macros.
    variables: Vec<(String, Type)>,
}

impl Checker {
    fn error(&self, at: &IdedExpr, message: impl Into<String>, remedy: impl Into<String>) -> ConditionError {
        let start = self.info.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        // A field stands behind its dot.
        let position = start + if matches!(at.expr, Expr::Select(_)) { 2 } else { 1 };
        ConditionError { position, message: message.into(), remedy: remedy.into() }
    }

    fn type_of(&mut self, expression: &IdedExpr) -> Checked<Type> {
        match &expression.expr {
            Expr::Ident(name) => self.variable(expression, name),
            Expr::Literal(LiteralValue::Boolean(_)) => Ok(Type::Bool),
            Expr::Literal(LiteralValue::Int(_)) => Ok(Type::Int),
            Expr::Literal(LiteralValue::String(_)) => Ok(Type::Text),
            Expr::Literal(LiteralValue::Double(_)) => {
                Err(self.error(expression, "has a decimal", "Write integers; amounts are in minor units."))
            }
            Expr::List(list) => {
                let mut of = Type::Any;
                for element in &list.elements {
                    let next = self.type_of(element)?;
                    if !matches!(next, Type::Bool | Type::Int | Type::Text | Type::Any) || !of.fits(&next) {
                        return Err(self.error(
                            element,
                            format!("puts {next} into the list"),
                            "List values of one type.",
                        ));
                    }
                    of = if of == Type::Any { next } else { of };
                }
                Ok(Type::list(of))
            }
            Expr::Select(select) => match self.type_of(&select.operand)? {
                Type::Attributes => Ok(Type::Any),
                Type::Object(object) => match object.fields.iter().find(|(name, _)| *name == select.field) {
                    Some((_, field)) => Ok(Type::of_field(*field)),
                    None => {
                        let known = object.fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                        let message = format!("`{}` is no field of {}", select.field, object.name);
                        Err(self.error(expression, message, format!("Known are: {known}.")))
                    }
                },
                other => Err(self.error(expression, format!("asks for a field of {other}"), NO_FIELDS)),
            },
            Expr::Call(call) => self.call(expression, call),
            _ => Err(self.error(expression, "is not supported", "Use comparisons, integers, strings and lists.")),
        }
    }

    fn variable(&self, expression: &IdedExpr, name: &str) -> Checked<Type> {
        if let Some((_, kind)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return Ok(kind.clone());
        }
        [&ORDER, &MEMBER, &ELIGIBLE].into_iter().find(|object| object.name == name).map(Type::Object).ok_or_else(|| {
            self.error(expression, format!("`{name}` is not known"), "Known are: order, member, eligible.")
        })
    }

    fn call(&mut self, expression: &IdedExpr, call: &CallExpr) -> Checked<Type> {
        let (name, args) = (call.func_name.as_str(), &call.args[..]);
        match (name, &call.target, args) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [one, two]) => {
                self.expect(one, &Type::Bool)?;
                self.expect(two, &Type::Bool)?;
                Ok(Type::Bool)
            }
            (operators::LOGICAL_NOT, None, [one]) => {
                self.expect(one, &Type::Bool)?;
                Ok(Type::Bool)
            }
            (operators::CONDITIONAL, None, [test, one, two]) => {
                self.expect(test, &Type::Bool)?;
                let kind = self.type_of(one)?;
                self.expect(two, &kind)?;
                Ok(kind)
            }
            (operators::EQUALS | operators::NOT_EQUALS, None, [one, two]) => {
                let kind = self.type_of(one)?;
                self.expect(two, &kind)?;
                Ok(Type::Bool)
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                None,
                [one, two],
            ) => {
                let kind = self.type_of(one)?;
                if !matches!(kind, Type::Int | Type::Text | Type::Any) {
                    return Err(self.error(expression, format!("compares {kind}"), "Compare integers or strings."));
                }
                self.expect(two, &kind)?;
                Ok(Type::Bool)
            }
            (operators::ADD, None, [one, two]) => {
                let kind = self.type_of(one)?;
                if !matches!(kind, Type::Int | Type::Text | Type::Any) {
                    return Err(self.error(expression, format!("adds to {kind}"), "Add integers or strings."));
                }
                self.expect(two, &kind)?;
                Ok(kind)
            }
            (operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO, None, [one, two]) => {
                self.expect(one, &Type::Int)?;
                self.expect(two, &Type::Int)?;
                Ok(Type::Int)
            }
            (operators::NEGATE, None, [one]) => {
                self.expect(one, &Type::Int)?;
                Ok(Type::Int)
            }
            (operators::IN, None, [one, list]) => {
                let kind = self.type_of(one)?;
                self.expect(list, &Type::list(kind))?;
                Ok(Type::Bool)
            }
            (operators::INDEX, None, [of, at]) => match self.type_of(of)? {
                Type::List(kind) => {
                    self.expect(at, &Type::Int)?;
                    Ok(*kind)
                }
                Type::Attributes => {
                    self.expect(at, &Type::Text)?;
                    Ok(Type::Any)
                }
                other => Err(self.error(of, format!("takes an element of {other}"), "Take one of a list.")),
            },
            ("size", None, [of]) => self.size(of),
            ("size", Some(of), []) => self.size(of),
            ("contains" | "startsWith" | "endsWith", Some(of), [part]) => {
                self.expect(of, &Type::Text)?;
                self.expect(part, &Type::Text)?;
                Ok(Type::Bool)
            }
            (operators::HAS, None, [of]) => match &of.expr {
                Expr::Select(select) if self.type_of(&select.operand)? == Type::Attributes => Ok(Type::Bool),
                _ => {
                    Err(self.error(of, "is always there", "Ask has() of attributes, like has(member.attributes.age)."))
                }
            },
            (
                operators::ALL | operators::EXISTS | operators::EXISTS_ONE | operators::FILTER | operators::MAP,
                Some(list),
                [variable, body],
            ) => self.go_over(expression, name, list, variable, body),
            (name, ..) => {
                let message = format!("`{name}` is no known function of this form");
                Err(self.error(expression, message, KNOWN_FUNCTIONS))
            }
        }
    }

    fn go_over(
        &mut self,
        expression: &IdedExpr,
        name: &str,
        list: &IdedExpr,
        variable: &IdedExpr,
        body: &IdedExpr,
    ) -> Checked<Type> {
        if !self.variables.is_empty() {
            return Err(self.error(expression, format!("uses {name}() inside another"), "Use one at a time."));
        }
        let Type::List(kind) = self.type_of(list)? else {
            return Err(self.error(list, format!("uses {name}() on something else than a list"), "Name a list."));
        };
        let Expr::Ident(variable) = &variable.expr else {
            return Err(self.error(variable, "is no name for an element", "Write a name, like line."));
        };
        self.variables.push((variable.clone(), (*kind).clone()));
        let result = self.type_of(body);
        self.variables.pop();
        match (name, result?) {
            (operators::MAP, of @ (Type::Bool | Type::Int | Type::Text | Type::Any)) => Ok(Type::list(of)),
            (operators::MAP, other) => Err(self.error(body, format!("gives {other}"), "Give a single value.")),
            (_, Type::Bool | Type::Any) if name == operators::FILTER => Ok(Type::List(kind)),
            (_, Type::Bool | Type::Any) => Ok(Type::Bool),
            (_, other) => Err(self.error(body, format!("gives {other}"), "Send a comparison.")),
        }
    }

    fn size(&mut self, of: &IdedExpr) -> Checked<Type> {
        match self.type_of(of)? {
            Type::Text | Type::List(_) | Type::Any => Ok(Type::Int),
            other => Err(self.error(of, format!("asks for the size of {other}"), "Ask it of a list or a string.")),
        }
    }

    fn expect(&mut self, expression: &IdedExpr, expected: &Type) -> Checked<()> {
        let kind = self.type_of(expression)?;
        if kind.fits(expected) {
            return Ok(());
        }
        Err(self.error(expression, format!("is {kind}"), format!("Write {expected} here.")))
    }
}

const NO_FIELDS: &str = "Only order, member, eligible, lines and attributes have fields.";
const KNOWN_FUNCTIONS: &str =
    "Known are: size, contains, startsWith, endsWith, has, all, exists, exists_one, filter, map.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::LocalTime;
    use serde_json::json;

    fn basket() -> Basket {
        let line = |product: &str, categories: &[&str], unit_price, quantity| Line {
            item_id: product.into(),
            product_id: product.into(),
            sku_id: None,
            category_ids: categories.iter().map(|name| (*name).to_owned()).collect(),
            unit_price,
            quantity,
            points_ratio: 100,
        };
        let object = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
        Basket {
            lines: vec![line("p1", &["books"], 1_000, 2), line("p2", &["toys", "sale"], 500, 1)],
            freight: 300,
            member_level: Some("GOLD".into()),
            // 2026-11-25 was a Wednesday.
            local_time: LocalTime { day: 20_782, minute: 15 * 60 + 59 },
            attributes: object(json!({"channel": "app", "first_order": true, "channel-code": 7, "list": [1]})),
            member_attributes: object(json!({"age": 30, "city": "上海"})),
        }
    }

    #[test]
    fn conditions_hold_or_do_not() {
        let basket = basket();
        let facts = Facts::of(&basket, 2_500);
        for (source, expected) in [
            ("order.amount == 2500 && order.freight == 300 && order.quantity == 3", true),
            ("order.amount - 500 * 2 > 1500", false),
            ("order.amount / 1000 == 2 && order.amount % 1000 == 500 && -order.amount < 0", true),
            ("order.hour == 15 && order.weekday in ['WEDNESDAY', 'FRIDAY']", true),
            ("member.level == 'GOLD' ? order.amount > 2000 : order.amount > 9000", true),
            ("member.level in []", false),
            ("eligible.amount == 2000 && eligible.quantity == 2", true),
            ("'p1' in order.products && !('p3' in order.products)", true),
            ("order.categories == ['books', 'toys', 'sale']", true),
            ("order.lines.exists(line, line.unit_price >= 1000 && 'books' in line.category_ids)", true),
            ("order.lines.all(line, line.quantity > 1)", false),
            ("order.lines.exists_one(line, line.amount == 500)", true),
            ("size(order.lines.filter(line, line.unit_price > 600)) == 1", true),
            ("order.lines.map(line, line.unit_price * line.quantity)[0] == 2000", true),
            ("order.lines.size() == 2 && 'abc'.size() == 3", true),
            ("order.attributes.channel == 'app' && order.attributes.first_order", true),
            ("order.attributes['channel-code'] == 7", true),
            ("has(member.attributes.age) && member.attributes.age >= 18", true),
            ("has(member.attributes.vip) && member.attributes.vip", false),
            ("member.attributes.city == '上海' && member.attributes.city.startsWith('上')", true),
            ("order.attributes.channel.contains('pp') && order.attributes.channel.endsWith('p')", true),
            ("true", true),
            ("order.amount > 100 // a comment", true),
        ] {
            let condition = Condition::compile(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
            assert_eq!(condition.holds(&facts, 2_000, 2), Ok(expected), "{source}");
            // As read from a store: compiled when it is asked.
            let stored = serde_json::to_string(&condition).unwrap();
            let read: Condition = serde_json::from_str(&stored).unwrap();
            assert_eq!(read, condition);
            assert_eq!(read.holds(&facts, 2_000, 2), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_position() {
        for (source, position, message) in [
            ("", 1, "mismatched input '<EOF>'"),
            ("order.amount >", 15, "mismatched input '<EOF>'"),
            ("order.amount > 1 §", 18, "token recognition error at: '§'"),
            ("true &&\n  (", 12, "mismatched input '<EOF>'"),
            ("amount > 1", 1, "`amount` is not known"),
            ("order.total > 1", 7, "`total` is no field of order"),
            ("member.age > 1", 8, "`age` is no field of member"),
            ("order.lines.all(line, line.price > 1)", 28, "`price` is no field of a line"),
            ("order.amount.minor > 1", 14, "asks for a field of an integer"),
            ("order.amount > '100'", 16, "is a string"),
            ("order.amount > 1.5", 16, "has a decimal"),
            ("order.amount", 7, "gives an integer"),
            ("member.level", 8, "gives a string"),
            ("member.level && true", 8, "is a string"),
            ("'a' - 1 == 0", 1, "is a string"),
            ("order.amount + 'a' == 1", 16, "is a string"),
            ("order.lines == order.lines", 22, "is a list of a line"),
            ("order == order", 10, "is order"),
            ("order.amount in order.products", 23, "is a list of a string"),
            ("[1, 'a'] == [1]", 5, "puts a string into the list"),
            ("order.lines.map(line, line)[0].quantity == 1", 23, "gives a line"),
            ("order.products.exists(p, order.products.exists(q, p == q))", 47, "uses exists() inside another"),
            ("order.amount.exists(p, true)", 7, "uses exists() on something else than a list"),
            ("order.products.all(p, 1)", 23, "gives an integer"),
            ("has(order.amount)", 11, "is always there"),
            ("member.level.matches('a+')", 21, "`matches` is no known function of this form"),
            ("timestamp('2026-01-01T00:00:00Z') == 1", 10, "`timestamp` is no known function of this form"),
            ("{'a': 1} == {'a': 1}", 1, "is not supported"),
            ("null == null", 1, "is not supported"),
            ("1u == 1u", 1, "is not supported"),
            ("b'a' == b'a'", 1, "is not supported"),
            ("order.amount > 99999999999999999999", 16, "invalid int literal"),
        ] {
            let error = Condition::compile(source).expect_err(source);
            assert_eq!((error.position, error.message.as_str()), (position, message), "{source}");
            assert!(!error.remedy.is_empty());
        }
    }

    #[test]
    fn what_an_order_lacks_makes_no_answer() {
        let basket = basket();
        let facts = Facts::of(&basket, 2_500);
        for (source, cause) in [
            ("member.attributes.vip", "the attribute `vip` is missing"),
            ("order.attributes.list == 1", "the attribute `list` is missing"),
            ("member.attributes.age == 30 && member.attributes.vip == 1", "the attribute `vip` is missing"),
            ("order.attributes.channel > 5", "an attribute is of another type"),
            ("order.attributes.channel", "the result is neither true nor false"),
            ("order.amount / (order.freight - 300) > 1", "a division by zero"),
            ("order.amount % (order.freight - 300) > 1", "a division by zero"),
            ("order.amount * 9223372036854775807 > 1", "a number is too large"),
            ("order.products[2] == 'p'", "a list is too short"),
        ] {
            let condition = Condition::compile(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
            assert_eq!(condition.holds(&facts, 0, 0), Err(cause.into()), "{source}");
        }
        // A side that decides alone makes the other's failure harmless.
        for source in ["member.attributes.vip || order.amount > 1", "!(member.attributes.vip && order.amount < 1)"] {
            assert_eq!(Condition::compile(source).unwrap().holds(&facts, 0, 0), Ok(true), "{source}");
        }
    }

    #[test]
    fn long_and_deep_expressions_are_refused_before_they_are_read() {
        let nested = |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
        for source in [
            "x".repeat(501),
            nested("(", ")", 25),
            nested("[", "]", 240),
            nested("-(", ")", 160),
            format!("1{}", "+1".repeat(240)),
            format!("a{}", ".a".repeat(240)),
            format!("{}true", "!".repeat(490)),
            format!("{}1", "true?1:".repeat(70)),
            format!("true{}", "&&true".repeat(80)),
            format!("a{}", "[a]".repeat(160)),
        ] {
            assert!(Condition::compile(&source).is_err(), "{source}");
        }
        // The largest that are admitted fit a small stack.
        let deepest = [
            format!("{} == 1", nested("(1+", ")", 24)),
            format!("{} == 1", nested("-(", ")", 24)),
            format!("{}true{}", "!(true && ".repeat(20), ")".repeat(20)),
            format!("1{} == 1", "+1".repeat(98)),
            format!("{}true", "!".repeat(100)),
            format!("{}true", "true?false:".repeat(40)),
            format!("true{}", "&&true".repeat(50)),
        ];
        let all = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
            for source in deepest {
                let condition = Condition::compile(&source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
                assert!(condition.holds(&Facts::of(&basket(), 2_500), 0, 0).is_ok(), "{source}");
            }
        });
        all.unwrap().join().expect("no overflow");
    }
}
