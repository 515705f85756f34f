//! The supported subset of the Jinja language.
//!
//! minijinja counts instructions, but one instruction can double a text, repeat it a million times,
//! or walk a list that contains itself twice at each level. Therefore, a value that a template
//! assigns to a name must not be larger than its input. Texts can only be joined where they are
//! written, and the output counts every byte (`output.rs`).

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::filters;

/// The maximum number of `~` in a template.
const MAX_CONCATENATIONS: usize = 64;
/// The maximum number of tokens in a tag: the parser of minijinja recurses for each operator.
const MAX_TAG_TOKENS: usize = 256;

/// Checks that a template uses only the supported subset.
///
/// # Errors
/// A message with the line and what to write instead.
pub fn check(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    check_tags(source, syntax.clone())?;
    let tree =
        parse(source, "template", syntax).map_err(|error| super::output::error_message(&error))?;
    Checker::default().statement(&tree)
}

fn check_tags(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    let mut length = 0;
    for token in tokenize(source, false, syntax) {
        let (token, span) = token.map_err(|error| super::output::error_message(&error))?;
        length = if matches!(token, Token::TemplateData(_)) {
            0
        } else {
            length + 1
        };
        if matches!(token, Token::VariableEnd | Token::BlockEnd) {
            length = 0;
        }
        if length > MAX_TAG_TOKENS {
            return Err(format!(
                "line {}: the tag has more than {MAX_TAG_TOKENS} tokens; split it",
                span.start_line
            ));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Checker<'a> {
    /// The names that the template has assigned so far.
    names: Vec<&'a str>,
    concatenations: usize,
}

/// Whether the value of an expression is assigned to a name.
#[derive(Clone, Copy, PartialEq)]
enum Assigned {
    Yes,
    No,
}

type CheckResult = Result<(), String>;

impl<'a> Checker<'a> {
    fn statements(&mut self, statements: &'a [Stmt<'a>]) -> CheckResult {
        statements
            .iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'a Stmt<'a>) -> CheckResult {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, Assigned::No),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::ForLoop(each) => {
                if each.recursive {
                    return Err(format!(
                        "line {}: recursive loops are not supported",
                        each.span().start_line
                    ));
                }
                self.expression(&each.iter, Assigned::Yes)?;
                self.name(&each.target)?;
                self.optional(each.filter_expr.as_ref(), Assigned::No)?;
                self.statements(&each.body)?;
                self.statements(&each.else_body)
            }
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr, Assigned::No)?;
                self.statements(&condition.true_body)?;
                self.statements(&condition.false_body)
            }
            Stmt::WithBlock(with) => {
                for (target, value) in &with.assignments {
                    self.expression(value, Assigned::Yes)?;
                    self.name(target)?;
                }
                self.statements(&with.body)
            }
            Stmt::Set(set) => {
                self.expression(&set.expr, Assigned::Yes)?;
                self.name(&set.target)
            }
            Stmt::SetBlock(set) => {
                self.optional(set.filter.as_ref(), Assigned::Yes)?;
                self.statements(&set.body)?;
                self.name(&set.target)
            }
            Stmt::FilterBlock(block) => {
                self.expression(&block.filter, Assigned::No)?;
                self.statements(&block.body)
            }
            Stmt::AutoEscape(escape) => {
                let line = escape.span().start_line;
                Err(format!(
                    "line {line}: autoescape is not supported; use {{{{ VALUE|safe }}}} for \
                     existing markup"
                ))
            }
            Stmt::Do(call) => Err(no_call(call.span().start_line)),
        }
    }

    /// Records the names of a target. Attributes and elements cannot be assigned.
    fn name(&mut self, target: &'a Expr<'a>) -> CheckResult {
        match target {
            Expr::Var(variable) => self.names.push(variable.id),
            Expr::List(list) => list.items.iter().try_for_each(|item| self.name(item))?,
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.name(item))?,
            _ => {
                return Err(format!(
                    "line {}: only a plain name can be assigned",
                    target.span().start_line
                ));
            }
        }
        Ok(())
    }

    fn optional(&mut self, expression: Option<&'a Expr<'a>>, assigned: Assigned) -> CheckResult {
        expression.map_or(Ok(()), |expression| self.expression(expression, assigned))
    }

    fn all(
        &mut self,
        expressions: impl IntoIterator<Item = &'a Expr<'a>>,
        assigned: Assigned,
    ) -> CheckResult {
        expressions
            .into_iter()
            .try_for_each(|expression| self.expression(expression, assigned))
    }

    fn expression(&mut self, expression: &'a Expr<'a>, assigned: Assigned) -> CheckResult {
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                let bounds = [&slice.start, &slice.stop, &slice.step];
                self.expression(&slice.expr, assigned)?;
                self.all(bounds.into_iter().flatten(), assigned)
            }
            Expr::UnaryOp(unary) => self.expression(&unary.expr, assigned),
            Expr::BinOp(binary) => {
                self.operator(
                    binary.op,
                    [&binary.left, &binary.right],
                    assigned,
                    binary.span().start_line,
                )?;
                self.all([&binary.left, &binary.right], assigned)
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr, assigned)?;
                self.all(compare.ops.iter().map(|operand| &operand.expr), assigned)
            }
            Expr::IfExpr(condition) => {
                self.all([&condition.test_expr, &condition.true_expr], assigned)?;
                self.optional(condition.false_expr.as_ref(), assigned)
            }
            Expr::Filter(filter) => {
                filters::check_name(filter.name)
                    .map_err(|message| format!("line {}: {message}", filter.span().start_line))?;
                self.optional(filter.expr.as_ref(), assigned)?;
                self.arguments(&filter.args, assigned)
            }
            Expr::Test(test) => {
                self.expression(&test.expr, assigned)?;
                self.arguments(&test.args, assigned)
            }
            Expr::GetAttr(attribute) => self.expression(&attribute.expr, assigned),
            Expr::GetItem(item) => self.all([&item.expr, &item.subscript_expr], assigned),
            Expr::Call(call) => Err(no_call(call.span().start_line)),
            Expr::List(list) => self.collection(&list.items, assigned),
            Expr::Tuple(tuple) => self.collection(&tuple.items, assigned),
            Expr::Map(map) => {
                self.collection(&map.keys, assigned)?;
                self.collection(&map.values, assigned)
            }
        }
    }

    fn operator(
        &mut self,
        operator: BinOpKind,
        sides: [&Expr<'_>; 2],
        assigned: Assigned,
        line: u16,
    ) -> CheckResult {
        let is_number =
            |side: &Expr<'_>| matches!(side, Expr::Const(constant) if constant.value.is_number());
        match operator {
            BinOpKind::Concat if assigned == Assigned::Yes => {
                let instead = "{% set NAME %}…{% endset %}";
                Err(format!(
                    "line {line}: ~ is not supported in an assigned value; use {instead}"
                ))
            }
            BinOpKind::Concat => {
                self.concatenations += 1;
                match self.concatenations > MAX_CONCATENATIONS {
                    true => Err(format!(
                        "line {line}: more than {MAX_CONCATENATIONS} uses of ~"
                    )),
                    false => Ok(()),
                }
            }
            BinOpKind::Add if !sides.into_iter().any(is_number) => Err(format!(
                "line {line}: + requires a literal number on one side; use ~ to join texts"
            )),
            BinOpKind::Mul | BinOpKind::Pow => {
                Err(format!("line {line}: * and ** are not supported"))
            }
            _ => Ok(()),
        }
    }

    /// Rejects assigned names as elements: nested lists could double in size at each level.
    fn collection(&mut self, items: &'a [Expr<'a>], assigned: Assigned) -> CheckResult {
        for item in items {
            if let Some(name) = self.assigned_name(item) {
                let line = item.span().start_line;
                return Err(format!(
                    "line {line}: a list or map cannot contain {name}, a name that the template \
                     assigns"
                ));
            }
        }
        self.all(items, assigned)
    }

    fn assigned_name(&self, expression: &Expr<'a>) -> Option<&'a str> {
        let first = |expressions: &[Option<&Expr<'a>>]| {
            expressions
                .iter()
                .flatten()
                .find_map(|part| self.assigned_name(part))
        };
        match expression {
            Expr::Var(variable) => self.names.contains(&variable.id).then_some(variable.id),
            Expr::Slice(slice) => first(&[Some(&slice.expr)]),
            Expr::BinOp(binary) => first(&[Some(&binary.left), Some(&binary.right)]),
            Expr::IfExpr(condition) => {
                first(&[Some(&condition.true_expr), condition.false_expr.as_ref()])
            }
            Expr::Filter(filter) => {
                let argument = |argument: &CallArg<'a>| self.assigned_name(argument_of(argument));
                first(&[filter.expr.as_ref()]).or_else(|| filter.args.iter().find_map(argument))
            }
            Expr::GetAttr(attribute) => first(&[Some(&attribute.expr)]),
            Expr::GetItem(item) => first(&[Some(&item.expr)]),
            Expr::List(list) => list.items.iter().find_map(|item| self.assigned_name(item)),
            Expr::Tuple(tuple) => tuple.items.iter().find_map(|item| self.assigned_name(item)),
            Expr::Map(map) => map
                .keys
                .iter()
                .chain(&map.values)
                .find_map(|item| self.assigned_name(item)),
            Expr::Const(_)
            | Expr::UnaryOp(_)
            | Expr::Compare(_)
            | Expr::Test(_)
            | Expr::Call(_) => None,
        }
    }

    fn arguments(&mut self, arguments: &'a [CallArg<'a>], assigned: Assigned) -> CheckResult {
        self.all(arguments.iter().map(argument_of), assigned)
    }
}

fn argument_of<'a, 'b>(argument: &'b CallArg<'a>) -> &'b Expr<'a> {
    match argument {
        CallArg::Pos(value)
        | CallArg::Kwarg(_, value)
        | CallArg::PosSplat(value)
        | CallArg::KwargSplat(value) => value,
    }
}

fn no_call(line: u16) -> String {
    format!("line {line}: functions are not supported; use a filter, such as {{{{ VALUE|upper }}}}")
}

#[cfg(test)]
mod tests;
