//! Which part of Jinja's language templates may use.
//!
//! minijinja counts instructions, but one instruction can double a text, repeat it a million times
//! or walk a list that holds itself twice at each level. So nothing that a template gives a name to
//! may be larger than what it was made of: texts are put together where they are written out, and
//! there every byte is counted (`program.rs`).

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::filters;

/// So many `~` in one template.
const MOST_CONCATENATIONS: usize = 64;
/// So many words and signs between `{{` and `}}`, or `{%` and `%}`: minijinja's parser recurses for
/// each operator.
const LONGEST_TAG: usize = 256;

/// Refuses what a template may not use.
///
/// # Errors
/// A sentence that names the line and what to write instead.
pub fn check(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    check_tags(source, syntax.clone())?;
    let tree =
        parse(source, "template", syntax).map_err(|error| super::program::sentence(&error))?;
    Checker::default().statement(&tree)
}

fn check_tags(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    let mut length = 0;
    for token in tokenize(source, false, syntax) {
        let (token, span) = token.map_err(|error| super::program::sentence(&error))?;
        length = if matches!(token, Token::TemplateData(_)) {
            0
        } else {
            length + 1
        };
        if matches!(token, Token::VariableEnd | Token::BlockEnd) {
            length = 0;
        }
        if length > LONGEST_TAG {
            return Err(format!(
                "line {}: more than {LONGEST_TAG} words and signs in one tag",
                span.start_line
            ));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Checker<'a> {
    /// Names that the template has given so far.
    given: Vec<&'a str>,
    concatenations: usize,
}

/// Whether the value of an expression gets a name.
#[derive(Clone, Copy, PartialEq)]
enum Named {
    Yes,
    No,
}

type Checked = Result<(), String>;

impl<'a> Checker<'a> {
    fn statements(&mut self, statements: &'a [Stmt<'a>]) -> Checked {
        statements
            .iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'a Stmt<'a>) -> Checked {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, Named::No),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::ForLoop(each) => {
                if each.recursive {
                    return Err(format!(
                        "line {}: a loop can't be recursive",
                        each.span().start_line
                    ));
                }
                self.expression(&each.iter, Named::Yes)?;
                self.name(&each.target)?;
                self.optional(each.filter_expr.as_ref(), Named::No)?;
                self.statements(&each.body)?;
                self.statements(&each.else_body)
            }
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr, Named::No)?;
                self.statements(&condition.true_body)?;
                self.statements(&condition.false_body)
            }
            Stmt::WithBlock(with) => {
                for (target, value) in &with.assignments {
                    self.expression(value, Named::Yes)?;
                    self.name(target)?;
                }
                self.statements(&with.body)
            }
            Stmt::Set(set) => {
                self.expression(&set.expr, Named::Yes)?;
                self.name(&set.target)
            }
            Stmt::SetBlock(set) => {
                self.optional(set.filter.as_ref(), Named::Yes)?;
                self.statements(&set.body)?;
                self.name(&set.target)
            }
            Stmt::FilterBlock(block) => {
                self.expression(&block.filter, Named::No)?;
                self.statements(&block.body)
            }
            Stmt::AutoEscape(escape) => {
                let line = escape.span().start_line;
                Err(format!(
                    "line {line}: there is no autoescape; write {{{{ VALUE|safe }}}} for a text that is markup already"
                ))
            }
            Stmt::Do(call) => Err(no_call(call.span().start_line)),
        }
    }

    /// Takes the names of a target; parts of other values are none.
    fn name(&mut self, target: &'a Expr<'a>) -> Checked {
        match target {
            Expr::Var(variable) => self.given.push(variable.id),
            Expr::List(list) => list.items.iter().try_for_each(|item| self.name(item))?,
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.name(item))?,
            _ => {
                return Err(format!(
                    "line {}: only a plain name can be set",
                    target.span().start_line
                ));
            }
        }
        Ok(())
    }

    fn optional(&mut self, expression: Option<&'a Expr<'a>>, named: Named) -> Checked {
        expression.map_or(Ok(()), |expression| self.expression(expression, named))
    }

    fn all(
        &mut self,
        expressions: impl IntoIterator<Item = &'a Expr<'a>>,
        named: Named,
    ) -> Checked {
        expressions
            .into_iter()
            .try_for_each(|expression| self.expression(expression, named))
    }

    fn expression(&mut self, expression: &'a Expr<'a>, named: Named) -> Checked {
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                let bounds = [&slice.start, &slice.stop, &slice.step];
                self.expression(&slice.expr, named)?;
                self.all(bounds.into_iter().flatten(), named)
            }
            Expr::UnaryOp(unary) => self.expression(&unary.expr, named),
            Expr::BinOp(binary) => {
                self.operator(
                    binary.op,
                    [&binary.left, &binary.right],
                    named,
                    binary.span().start_line,
                )?;
                self.all([&binary.left, &binary.right], named)
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr, named)?;
                self.all(compare.ops.iter().map(|operand| &operand.expr), named)
            }
            Expr::IfExpr(condition) => {
                self.all([&condition.test_expr, &condition.true_expr], named)?;
                self.optional(condition.false_expr.as_ref(), named)
            }
            Expr::Filter(filter) => {
                filters::known(filter.name)
                    .map_err(|sentence| format!("line {}: {sentence}", filter.span().start_line))?;
                self.optional(filter.expr.as_ref(), named)?;
                self.arguments(&filter.args, named)
            }
            Expr::Test(test) => {
                self.expression(&test.expr, named)?;
                self.arguments(&test.args, named)
            }
            Expr::GetAttr(attribute) => self.expression(&attribute.expr, named),
            Expr::GetItem(item) => self.all([&item.expr, &item.subscript_expr], named),
            Expr::Call(call) => Err(no_call(call.span().start_line)),
            Expr::List(list) => self.collection(&list.items, named),
            Expr::Tuple(tuple) => self.collection(&tuple.items, named),
            Expr::Map(map) => {
                self.collection(&map.keys, named)?;
                self.collection(&map.values, named)
            }
        }
    }

    fn operator(
        &mut self,
        operator: BinOpKind,
        sides: [&Expr<'_>; 2],
        named: Named,
        line: u16,
    ) -> Checked {
        let is_number =
            |side: &Expr<'_>| matches!(side, Expr::Const(constant) if constant.value.is_number());
        match operator {
            BinOpKind::Concat if named == Named::Yes => {
                let instead = "{% set NAME %}…{% endset %}";
                Err(format!(
                    "line {line}: ~ can't be part of a value that gets a name; write {instead}"
                ))
            }
            BinOpKind::Concat => {
                self.concatenations += 1;
                match self.concatenations > MOST_CONCATENATIONS {
                    true => Err(format!("line {line}: more than {MOST_CONCATENATIONS} of ~")),
                    false => Ok(()),
                }
            }
            BinOpKind::Add if !sides.into_iter().any(is_number) => Err(format!(
                "line {line}: + is for numbers, and one side must be written as one; texts are put together with ~"
            )),
            BinOpKind::Mul | BinOpKind::Pow => Err(format!("line {line}: * and ** are not there")),
            _ => Ok(()),
        }
    }

    /// A list in a list that has a name, and so on, would double at each level.
    fn collection(&mut self, items: &'a [Expr<'a>], named: Named) -> Checked {
        for item in items {
            if let Some(name) = self.given_name(item) {
                let line = item.span().start_line;
                return Err(format!(
                    "line {line}: a list or map can't hold {name}, which is a name that the template gives"
                ));
            }
        }
        self.all(items, named)
    }

    fn given_name(&self, expression: &Expr<'a>) -> Option<&'a str> {
        let first = |expressions: &[Option<&Expr<'a>>]| {
            expressions
                .iter()
                .flatten()
                .find_map(|part| self.given_name(part))
        };
        match expression {
            Expr::Var(variable) => self.given.contains(&variable.id).then_some(variable.id),
            Expr::Slice(slice) => first(&[Some(&slice.expr)]),
            Expr::BinOp(binary) => first(&[Some(&binary.left), Some(&binary.right)]),
            Expr::IfExpr(condition) => {
                first(&[Some(&condition.true_expr), condition.false_expr.as_ref()])
            }
            Expr::Filter(filter) => {
                let argument = |argument: &CallArg<'a>| self.given_name(argument_of(argument));
                first(&[filter.expr.as_ref()]).or_else(|| filter.args.iter().find_map(argument))
            }
            Expr::GetAttr(attribute) => first(&[Some(&attribute.expr)]),
            Expr::GetItem(item) => first(&[Some(&item.expr)]),
            Expr::List(list) => list.items.iter().find_map(|item| self.given_name(item)),
            Expr::Tuple(tuple) => tuple.items.iter().find_map(|item| self.given_name(item)),
            Expr::Map(map) => map
                .keys
                .iter()
                .chain(&map.values)
                .find_map(|item| self.given_name(item)),
            Expr::Const(_)
            | Expr::UnaryOp(_)
            | Expr::Compare(_)
            | Expr::Test(_)
            | Expr::Call(_) => None,
        }
    }

    fn arguments(&mut self, arguments: &'a [CallArg<'a>], named: Named) -> Checked {
        self.all(arguments.iter().map(argument_of), named)
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
    format!("line {line}: there are no functions to call; there are filters: {{{{ VALUE|upper }}}}")
}

#[cfg(test)]
mod tests;
