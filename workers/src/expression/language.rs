//! The language of `commitStatusExpr`: the same CEL as in Flux.
//!
//! It has the standard library and macros, optional values, the extensions strings, encoders and
//! sets, and `first()` and `last()` on lists. This module adds what the CEL library lacks and
//! corrects what differs.

use std::mem::take;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr};
use cel::common::types::{
    CelBool, CelDouble, CelList, CelOptional, CelString, CelTimestamp, DYN_TYPE, LIST_TYPE,
};
use cel::common::value::{CowVal, Val};
use cel::parser::{Macro, MacroExprHelper};
use cel::{DeclarationError, Env, ExecutionError, IdedExpr};

/// Shared by all expressions.
pub static LANGUAGE: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(language().expect("no two functions have one name")));

/// The methods of a time that use UTC without a time zone. The library uses the offset that the
/// time was written with.
const GETTERS: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

type Called<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn language() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(cel::extensions::strings)?;
    env.add_extension(cel::extensions::encoders)?;
    env.add_overload(
        "sets.contains",
        "list_sets_contains_list",
        vec![LIST_TYPE, LIST_TYPE],
        sets_contains,
    )?;
    env.add_overload(
        "sets.equivalent",
        "list_sets_equivalent_list",
        vec![LIST_TYPE, LIST_TYPE],
        sets_equivalent,
    )?;
    env.add_overload(
        "sets.intersects",
        "list_sets_intersects_list",
        vec![LIST_TYPE, LIST_TYPE],
        sets_intersects,
    )?;
    env.add_overload(
        "optional.unwrap",
        "optional_unwrap",
        vec![LIST_TYPE],
        unwrap_optionals,
    )?;
    env.add_member_overload(
        "unwrapOpt",
        "optional_unwrapOpt",
        LIST_TYPE,
        vec![],
        unwrap_optionals,
    )?;
    env.add_overload("@string", "dyn_to_string", vec![DYN_TYPE], string)?;
    env.add_macro(Macro::global("string", 1, |helper, _, args| {
        Ok(Some(call(helper, "@string", None, take(args))))
    }))?;
    env.add_overload("@utc", "dyn_to_utc", vec![DYN_TYPE], utc)?;
    for getter in GETTERS {
        env.add_macro(Macro::receiver(getter, 0, move |helper, target, _| {
            let in_utc = call(helper, "@utc", None, target.take().into_iter().collect());
            Ok(Some(call(helper, getter, Some(in_utc), Vec::new())))
        }))?;
    }
    env.add_member_overload("first", "list_first", LIST_TYPE, vec![], first)?;
    env.add_member_overload("last", "list_last", LIST_TYPE, vec![], last)?;
    Ok(env)
}

fn call(
    helper: &mut MacroExprHelper<'_>,
    function: &str,
    target: Option<IdedExpr>,
    args: Vec<IdedExpr>,
) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr {
        func_name: function.to_owned(),
        target: target.map(Box::new),
        args,
    }))
}

/// `string(x)`, with numbers as Go writes them.
fn string<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    if let Some(number) = args[0].downcast_ref::<CelDouble>() {
        return Ok(CowVal::owned(CelString::from(go_text(*number.inner()))));
    }
    match LANGUAGE.find_overload("string", &args) {
        Some(convert) => convert(args),
        None => Err(ExecutionError::no_such_overload(
            "string",
            vec![args[0].get_type().name().to_owned()],
        )),
    }
}

/// A number as Go's `%g` writes it: with an exponent from 1e6 and below 1e-4.
fn go_text(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        _ if number.is_nan() => "NaN".to_owned(),
        _ if number.is_infinite() => if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            format!(
                "{digits}e{}{:02}",
                if exponent < 0 { '-' } else { '+' },
                exponent.abs()
            )
        }
        _ => number.to_string(),
    }
}

/// A time in UTC; other values unchanged.
fn utc<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    let value = args.remove(0);
    Ok(match value.downcast_ref::<CelTimestamp>() {
        Some(time) => CowVal::owned(CelTimestamp::from(time.inner().to_utc().fixed_offset())),
        None => value,
    })
}

fn sets_contains<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    Ok(truth(is_subset(&args[1], &args[0])?))
}

fn sets_equivalent<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    Ok(truth(
        is_subset(&args[0], &args[1])? && is_subset(&args[1], &args[0])?,
    ))
}

fn sets_intersects<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    let others = elements(&args[1])?;
    Ok(truth(elements(&args[0])?.iter().any(|item| {
        others.iter().any(|other| item.equals(*other))
    })))
}

/// The values of the optionals in a list that have one.
fn unwrap_optionals<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    let values = elements(&args[0])?
        .into_iter()
        .filter_map(|item| item.downcast_ref::<CelOptional>()?.option());
    Ok(CowVal::owned(CelList::from(
        values
            .map(|value| value.clone_as_boxed())
            .collect::<Vec<_>>(),
    )))
}

fn first<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    Ok(optional(elements(&args[0])?.first()))
}

fn last<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Called<'b, 'v> {
    Ok(optional(elements(&args[0])?.last()))
}

fn is_subset(part: &CowVal<'_, '_>, whole: &CowVal<'_, '_>) -> Result<bool, ExecutionError> {
    let whole = elements(whole)?;
    Ok(elements(part)?
        .iter()
        .all(|item| whole.iter().any(|other| item.equals(*other))))
}

fn elements<'a, 'v>(list: &'a CowVal<'_, 'v>) -> Result<Vec<&'a (dyn Val + 'v)>, ExecutionError> {
    let iterable = list
        .as_ref()
        .as_iterable()
        .ok_or_else(|| ExecutionError::function_error("list", "not a list"))?;
    let mut iterator = iterable.iter();
    Ok(std::iter::from_fn(|| iterator.next()).collect())
}

fn truth<'b, 'v>(holds: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(holds))
}

fn optional<'b, 'v>(item: Option<&&(dyn Val + 'v)>) -> CowVal<'b, 'v> {
    CowVal::owned(item.map_or_else(CelOptional::none, |item| {
        CelOptional::of(item.clone_as_boxed())
    }))
}

#[cfg(test)]
mod tests {
    use cel::{Context, Value};

    use super::*;

    fn evaluate(source: &str) -> String {
        let program = LANGUAGE.compile(source).unwrap();
        match program.execute(&Context::with_env(Arc::clone(&LANGUAGE))) {
            Ok(Value::String(text)) => text.as_str().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn lists_sets_and_optionals() {
        for (source, text) in [
            ("['a', 'b'].last().value()", "b"),
            ("[].first().orValue('empty')", "empty"),
            (
                "optional.unwrap([optional.of('a'), optional.none()])[0] + \
                 [optional.of('b')].unwrapOpt()[0]",
                "ab",
            ),
            (
                "sets.contains([1, 2], [2]) && !sets.contains([2], [1, 2]) ? 'y' : 'n'",
                "y",
            ),
            (
                "sets.equivalent([1, 1, 2], [2, 1]) && !sets.intersects(['a'], ['b']) ? 'y' : 'n'",
                "y",
            ),
            ("string(base64.decode('aGVsbG8='))", "hello"),
            ("'%s-%d'.format(['x', 3])", "x-3"),
        ] {
            assert_eq!(evaluate(source), text, "{source}");
        }
    }

    #[test]
    fn values_become_text_as_in_go() {
        for (source, text) in [
            ("string(2.0)", "2"),
            ("string(1e100)", "1e+100"),
            (
                "string(1000000.0) + string(123456.5) + string(-0.00001)",
                "1e+06123456.5-1e-05",
            ),
            (
                "string(7) + string(true) + string(b'x') + string(duration('90s'))",
                "7truex90s",
            ),
        ] {
            assert_eq!(evaluate(source), text, "{source}");
        }
        assert!(evaluate("string({})").contains("string"));
    }

    #[test]
    fn times_are_in_utc() {
        let time = "timestamp('2026-02-03T23:05:06-05:00')";
        assert_eq!(
            evaluate(&format!(
                "string({time}.getDate()) + '-' + string({time}.getHours())"
            )),
            "4-4"
        );
        assert_eq!(evaluate(&format!("string({time}.getHours('+01:00'))")), "5");
        assert_eq!(evaluate("string(duration('1h30m').getMinutes())"), "90");
    }
}
