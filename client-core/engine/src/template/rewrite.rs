//! The template's tree with our own filters where minijinja would make values without asking anybody.
//!
//! `a ~ b`, `a + b`, `a * b` and `a[b:c:d]` become filters; lists and mappings that are written out pass through [`KEPT`];
//! what is compared passes through [`COMPARED`]; text between tags is shown as a constant, so that the formatter sees it. The names of these filters
//! are no identifiers: a template can neither call nor replace them. Nothing is computed while the template is compiled,
//! where no budget would be charged.

use minijinja::machinery::Span;
use minijinja::machinery::ast::*;
use minijinja::value::Value;

use super::python;

/// Charges for a value.
pub(super) const KEPT: &str = "=";
/// Asks whether the render is to be given up, before two values are compared, which may take as long as they are.
pub(super) const COMPARED: &str = "==";
/// Lets a value into a namespace.
pub(super) const STORED: &str = "=.";
/// Writes two values one after the other.
pub(super) const CONCAT: &str = "~";
/// Adds numbers, texts or lists.
pub(super) const ADD: &str = "+";
/// Takes a part of a text or a list.
pub(super) const SLICE: &str = "[:]";
/// The remainder of a division, or values in a text.
pub(super) const REMAINDER: &str = "%";
/// Takes an attribute that may be a method.
pub(super) const METHOD: &str = ".";
/// How often a number is in another as a whole.
pub(super) const QUOTIENT: &str = "//";
/// Multiplies numbers, or repeats a text or a list.
pub(super) const REPEAT: &str = "*";

fn filter<'a>(name: &'a str, of: Expr<'a>, args: Vec<CallArg<'a>>, span: Span) -> Expr<'a> {
    Expr::Filter(Spanned::new(Filter { name, expr: Some(of), args }, span))
}

fn optional<'a>(of: &Option<Expr<'a>>) -> Option<Expr<'a>> {
    of.as_ref().map(expr)
}

fn exprs<'a>(of: &[Expr<'a>]) -> Vec<Expr<'a>> {
    of.iter().map(expr).collect()
}

fn args<'a>(of: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    of.iter()
        .map(|arg| match arg {
            CallArg::Pos(value) => CallArg::Pos(expr(value)),
            CallArg::Kwarg(name, value) => CallArg::Kwarg(name, expr(value)),
            CallArg::PosSplat(value) => CallArg::PosSplat(filter(KEPT, expr(value), Vec::new(), value.span())),
            CallArg::KwargSplat(value) => CallArg::KwargSplat(filter(KEPT, expr(value), Vec::new(), value.span())),
        })
        .collect()
}

fn call<'a>(of: &Spanned<Call<'a>>) -> Spanned<Call<'a>> {
    let called = match &of.expr {
        // The call of a method; as a value it would be another.
        Expr::GetAttr(of) => Expr::GetAttr(Spanned::new(GetAttr { expr: expr(&of.expr), name: of.name }, of.span())),
        other => expr(other),
    };
    Spanned::new(Call { expr: called, args: args(&of.args) }, of.span())
}

fn expr<'a>(of: &Expr<'a>) -> Expr<'a> {
    let span = of.span();
    let keep = |made: Expr<'a>| filter(KEPT, made, Vec::new(), span);
    match of {
        Expr::Var(of) => Expr::Var(Spanned::new(Var { id: of.id }, span)),
        Expr::Const(of) => Expr::Const(Spanned::new(Const { value: of.value.clone() }, span)),
        Expr::Slice(of) => {
            let nothing = || Expr::Const(Spanned::new(Const { value: Value::from(()) }, span));
            let bounds = [&of.start, &of.stop, &of.step].map(|bound| optional(bound).unwrap_or_else(nothing));
            filter(SLICE, expr(&of.expr), bounds.map(CallArg::Pos).into(), span)
        }
        Expr::UnaryOp(of) => {
            // It is no `Copy`.
            let op = if matches!(of.op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: expr(&of.expr) }, span))
        }
        Expr::BinOp(of) => {
            let (left, right) = (expr(&of.left), expr(&of.right));
            let name = match of.op {
                BinOpKind::Add => ADD,
                BinOpKind::Mul => REPEAT,
                BinOpKind::Concat => CONCAT,
                BinOpKind::Rem => REMAINDER,
                BinOpKind::FloorDiv => QUOTIENT,
                BinOpKind::ScAnd | BinOpKind::ScOr => {
                    return Expr::BinOp(Spanned::new(BinOp { op: of.op, left, right }, span));
                }
                op => {
                    let left = filter(COMPARED, left, Vec::new(), span);
                    return Expr::BinOp(Spanned::new(BinOp { op, left, right }, span));
                }
            };
            filter(name, left, vec![CallArg::Pos(right)], span)
        }
        Expr::Compare(of) => {
            let ops = of.ops.iter().map(|to| CompareOp { op: to.op, expr: expr(&to.expr) }).collect();
            let compared = filter(COMPARED, expr(&of.expr), Vec::new(), span);
            Expr::Compare(Spanned::new(Compare { expr: compared, ops }, span))
        }
        Expr::IfExpr(of) => Expr::IfExpr(Spanned::new(
            IfExpr {
                test_expr: expr(&of.test_expr),
                true_expr: expr(&of.true_expr),
                false_expr: optional(&of.false_expr),
            },
            span,
        )),
        Expr::Filter(of) => {
            Expr::Filter(Spanned::new(Filter { name: of.name, expr: optional(&of.expr), args: args(&of.args) }, span))
        }
        Expr::Test(of) => {
            let mut tested = expr(&of.expr);
            // Those without arguments look at the value's kind alone.
            if !of.args.is_empty() {
                tested = filter(COMPARED, tested, Vec::new(), span);
            }
            Expr::Test(Spanned::new(Test { name: of.name, expr: tested, args: args(&of.args) }, span))
        }
        // Jinja2 finds the methods of Python's values before what a mapping holds under their names.
        Expr::GetAttr(of) if python::is_method(of.name) => {
            let name = Expr::Const(Spanned::new(Const { value: Value::from(of.name) }, span));
            filter(METHOD, expr(&of.expr), vec![CallArg::Pos(name)], span)
        }
        Expr::GetAttr(of) => Expr::GetAttr(Spanned::new(GetAttr { expr: expr(&of.expr), name: of.name }, span)),
        Expr::GetItem(of) => Expr::GetItem(Spanned::new(
            GetItem { expr: expr(&of.expr), subscript_expr: expr(&of.subscript_expr) },
            span,
        )),
        Expr::Call(of) => Expr::Call(call(of)),
        Expr::List(of) => keep(Expr::List(Spanned::new(List { items: exprs(&of.items) }, span))),
        Expr::Tuple(of) => keep(Expr::Tuple(Spanned::new(Tuple { items: exprs(&of.items) }, span))),
        Expr::Map(of) => keep(Expr::Map(Spanned::new(Map { keys: exprs(&of.keys), values: exprs(&of.values) }, span))),
    }
}

/// What is assigned to: the same again, without filters.
fn target<'a>(of: &Expr<'a>) -> Expr<'a> {
    let each = |items: &[Expr<'a>]| items.iter().map(target).collect();
    match of {
        Expr::Tuple(of) => Expr::Tuple(Spanned::new(Tuple { items: each(&of.items) }, of.span())),
        Expr::List(of) => Expr::List(Spanned::new(List { items: each(&of.items) }, of.span())),
        Expr::GetAttr(of) => Expr::GetAttr(Spanned::new(GetAttr { expr: expr(&of.expr), name: of.name }, of.span())),
        other => expr(other),
    }
}

fn stmts<'a>(of: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
    of.iter().map(stmt).collect()
}

/// A macro. Where a default is no constant it may name the arguments before it, which are not there yet when minijinja works
/// it out: then the macro begins with it.
fn declaration<'a>(of: &Spanned<Macro<'a>>) -> Spanned<Macro<'a>> {
    let span = of.span();
    let undefined = || Expr::Const(Spanned::new(Const { value: Value::UNDEFINED }, span));
    let first = of.args.len().saturating_sub(of.defaults.len());
    let (mut defaults, mut body) = (Vec::new(), Vec::new());
    for (arg, default) in of.args.iter().skip(first).zip(&of.defaults) {
        if matches!(default, Expr::Const(_)) {
            defaults.push(expr(default));
            continue;
        }
        defaults.push(undefined());
        let is_missing = Test { name: "undefined", expr: target(arg), args: Vec::new() };
        let value = IfExpr {
            test_expr: Expr::Test(Spanned::new(is_missing, span)),
            true_expr: expr(default),
            false_expr: Some(target(arg)),
        };
        let value = Expr::IfExpr(Spanned::new(value, span));
        body.push(Stmt::Set(Spanned::new(Set { target: target(arg), expr: value }, span)));
    }
    body.extend(stmts(&of.body));
    let parts = Macro { name: of.name, args: of.args.iter().map(target).collect(), defaults, body };
    Spanned::new(parts, span)
}

/// What asks for another template ends in an error where it is reached.
fn no_other<'a>(span: Span) -> Stmt<'a> {
    let message = "a chat template is one file: there is no other to take in";
    let message = CallArg::Pos(Expr::Const(Spanned::new(Const { value: Value::from(message) }, span)));
    let raise = Expr::Var(Spanned::new(Var { id: "raise_exception" }, span));
    let call = Expr::Call(Spanned::new(Call { expr: raise, args: vec![message] }, span));
    Stmt::EmitExpr(Spanned::new(EmitExpr { expr: call }, span))
}

/// The statement `of`, rewritten.
pub(super) fn stmt<'a>(of: &Stmt<'a>) -> Stmt<'a> {
    match of {
        Stmt::Template(of) => Stmt::Template(Spanned::new(Template { children: stmts(&of.children) }, of.span())),
        Stmt::EmitExpr(of) => Stmt::EmitExpr(Spanned::new(EmitExpr { expr: expr(&of.expr) }, of.span())),
        Stmt::EmitRaw(of) => {
            let text = Expr::Const(Spanned::new(Const { value: Value::from(of.raw) }, of.span()));
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr: text }, of.span()))
        }
        Stmt::ForLoop(of) => Stmt::ForLoop(Spanned::new(
            ForLoop {
                target: target(&of.target),
                iter: expr(&of.iter),
                filter_expr: optional(&of.filter_expr),
                recursive: of.recursive,
                body: stmts(&of.body),
                else_body: stmts(&of.else_body),
            },
            of.span(),
        )),
        Stmt::IfCond(of) => Stmt::IfCond(Spanned::new(
            IfCond { expr: expr(&of.expr), true_body: stmts(&of.true_body), false_body: stmts(&of.false_body) },
            of.span(),
        )),
        Stmt::WithBlock(of) => {
            let assignments = of.assignments.iter().map(|(to, value)| (target(to), expr(value))).collect();
            Stmt::WithBlock(Spanned::new(WithBlock { assignments, body: stmts(&of.body) }, of.span()))
        }
        Stmt::Set(of) => {
            let mut value = expr(&of.expr);
            if !matches!(of.target, Expr::Var(_)) {
                value = filter(STORED, value, Vec::new(), of.span());
            }
            Stmt::Set(Spanned::new(Set { target: target(&of.target), expr: value }, of.span()))
        }
        Stmt::SetBlock(of) => Stmt::SetBlock(Spanned::new(
            SetBlock { target: target(&of.target), filter: optional(&of.filter), body: stmts(&of.body) },
            of.span(),
        )),
        Stmt::AutoEscape(of) => {
            Stmt::AutoEscape(Spanned::new(AutoEscape { enabled: expr(&of.enabled), body: stmts(&of.body) }, of.span()))
        }
        Stmt::FilterBlock(of) => {
            Stmt::FilterBlock(Spanned::new(FilterBlock { filter: expr(&of.filter), body: stmts(&of.body) }, of.span()))
        }
        // There is nobody to fill it with something else.
        Stmt::Block(of) => {
            let always = Expr::Const(Spanned::new(Const { value: Value::from(true) }, of.span()));
            let body = IfCond { expr: always, true_body: stmts(&of.body), false_body: Vec::new() };
            Stmt::IfCond(Spanned::new(body, of.span()))
        }
        Stmt::Import(of) => no_other(of.span()),
        Stmt::FromImport(of) => no_other(of.span()),
        Stmt::Extends(of) => no_other(of.span()),
        Stmt::Include(of) => no_other(of.span()),
        Stmt::Macro(of) => Stmt::Macro(declaration(of)),
        Stmt::CallBlock(of) => Stmt::CallBlock(Spanned::new(
            CallBlock { call: call(&of.call), macro_decl: declaration(&of.macro_decl) },
            of.span(),
        )),
        Stmt::Continue(of) => Stmt::Continue(Spanned::new(Continue, of.span())),
        Stmt::Break(of) => Stmt::Break(Spanned::new(Break, of.span())),
        Stmt::Do(of) => Stmt::Do(Spanned::new(Do { call: call(&of.call) }, of.span())),
    }
}
