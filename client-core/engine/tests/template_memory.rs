//! What hostile chat templates make a render hold, counted in the allocator.

mod counting;

use counting::{held, peak_of};
use engine::ChatMessage;
use engine::template::ChatTemplate;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// What a render of a short conversation may hold: its budget of 16 MiB, and what one operation needs for a moment beside.
const MOST: usize = 80 << 20;

/// A loop that does `body` sixty times over `s` and `l`.
fn repeated(body: &str) -> String {
    let set = "{% set ns = namespace(s='abcdefgh', l=[1, 2, 3, 4]) %}";
    format!("{set}{{% for i in range(60) %}}{body}{{% endfor %}}{{{{ ns.s | length }}}}")
}

/// A text of eight megabytes as `s`, and a list of a hundred thousand as `l`.
fn large(body: &str) -> String {
    format!("{{% set s = 'abcdefgh' * 1000000 %}}{{% set l = [s] * 100000 %}}{body}")
}

#[test]
fn hostile_templates_end_in_an_error_before_they_take_much() {
    let raw = "x".repeat(200_000);
    let refused = [
        // Doubling.
        repeated("{% set ns.s = ns.s ~ ns.s %}"),
        repeated("{% set ns.s = ns.s + ns.s %}"),
        repeated("{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
        repeated("{% set ns.s = [ns.s, ns.s] | join %}"),
        repeated("{% set ns.s = ns.s | replace('a', 'aa') | replace('b', ns.s) %}"),
        repeated("{% set ns.s = '%s%s' | format(ns.s, ns.s) %}"),
        repeated("{% set ns.s = [ns.s, ns.s] | string %}"),
        repeated("{% set ns.s = [ns.s, ns.s] | tojson %}"),
        repeated("{% set ns.l = ns.l + ns.l %}"),
        repeated("{% set ns.l = ns.l * 2 %}"),
        repeated("{% set ns.l = [ns.l, ns.l] %}"),
        repeated("{% set ns.l = {'a': ns.l, 'b': ns.l} %}"),
        repeated("{% set ns.l = [ns.l, ns.l] | map('list') | list %}"),
        repeated("{% set ns.l = dict(a=ns.l, b=ns.l) %}"),
        repeated("{% set ns.l = (ns.l, ns.l) %}"),
        repeated("{% set ns.s = ns.s.replace('', ns.s) %}"),
        "{% macro m(s, n) %}{{ s if n == 0 else m(s ~ s, n - 1) }}{% endmacro %}{{ m('abcdefgh', 40) }}".into(),
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}xxxxxxxx{% endif %}{% endmacro %}{{ m(40) }}"
            .into(),
        // At one stroke.
        "{{ 'x' * 10**9 }}".into(),
        "{{ 10**9 * 'x' }}".into(),
        "{{ ([0] * 10**9) | length }}".into(),
        "{% for x in [0] * 10**12 %}{% endfor %}".into(),
        "{{ ('x' * 99999999) ~ ('x' * 99999999) ~ ('x' * 99999999) }}".into(),
        "{{ '%1000000000d' | format(1) }}".into(),
        "{{ '%*d' | format(1000000000, 1) }}".into(),
        "{{ 'a\nb' | indent(1000000000) }}".into(),
        "{{ 'a\nb' | indent(width=1000000000) }}".into(),
        "{{ range(1000000000) | list }}".into(),
        "{{ [1] | batch(1000000000, 'x') }}".into(),
        "{{ [1] | slice(1000000000) }}".into(),
        "{{ [1, 2] | tojson(indent=1000000000) ~ 'x' * 10**8 }}".into(),
        "{{ 'x' | center(1000000000) }}".into(),
        // From a large value.
        large("{{ l | join }}"),
        large("{{ l | join(s) }}"),
        large("{{ l | string | length }}"),
        large("{{ l | tojson | length }}"),
        large("{{ l ~ '' }}"),
        large("{{ l | sum(start='') }}"),
        large("{{ l }}"),
        large("{{ s | list | length }}"),
        large("{{ s | sort | length }}"),
        large("{{ s.split('') | length }}"),
        large("{{ s.split('a') | length }}"),
        large("{{ s | replace('a', s) }}"),
        large("{{ s.replace('', s) }}"),
        large("{{ s | map('upper') | list | length }}"),
        large("{{ '%(a)s%(a)s%(a)s%(a)s' | format(a=s) }}"),
        large("{{ raise_exception(l) }}"),
        large("{{ strftime_now(s) }}"),
        large("{{ messages | selectattr(l) }}"),
        large("{{ s | e }}{{ s | title }}{{ s | upper }}"),
        large("{% for i in range(100) %}{% set x = s[1:] %}{% endfor %}"),
        large("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + [s[i:]] %}{% endfor %}"),
        large("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + [l[i:]] %}{% endfor %}"),
        large("{% macro m(n, a) %}{{ m(n - 1, *l) if n }}{% endmacro %}{{ m(100, *l) }}"),
        large("{% set a, b = l + l + l + l + l %}"),
        // Text between tags.
        format!("{{% for i in range(9000) %}}{raw}{{% endfor %}}"),
        format!("{{% set x %}}{{% for i in range(9000) %}}{raw}{{% endfor %}}{{% endset %}}"),
        // What would hold itself.
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".into(),
        "{% set ns = namespace() %}{% set ns.a = [{'b': ns}] %}{{ ns | tojson }}".into(),
        "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a }}".into(),
    ];
    for source in &refused {
        let shown: String = source.chars().take(120).collect();
        let (result, peak) = peak_of(|| render(source));
        let error = result.expect_err(&shown);
        assert!(peak <= MOST, "{peak} bytes were held: {shown}: {error}");
        assert!(error.len() < 1000, "{shown}: {error}");
        // Nothing of it stays.
        let (_, left) = peak_of(|| ());
        assert_eq!(left, 0);
    }
}

#[test]
fn what_is_rendered_takes_no_more_either() {
    for (source, length) in [
        ("{{ 'x' * 1000000 }}", 1_000_000),
        ("{% set x = 'x' * 1000000 %}{% for i in range(10) %}{{ x }}{% endfor %}", 10_000_000),
        ("{{ range(90000) | join }}", 438_890),
        ("{{ (range(90000) | list)[::-1] | tojson | length }}", 6),
        // Only compiled, never run.
        ("{% if false %}{{ 'x' * 99999999 ~ 'x' * 99999999 ~ [0] * 99999999 }}{% endif %}", 0),
    ] {
        let (result, peak) = peak_of(|| render(source));
        assert_eq!(result.map(|text| text.len()), Ok(length), "{source}");
        assert!(peak <= MOST, "{peak} bytes were held: {source}");
    }
}

#[test]
fn compiling_takes_no_more_either() {
    for (begin, again, end) in [("", "x{{a}}", ""), ("", "{{1}}", ""), ("{{[", "'',", "1]}}"), ("", "{%set a=b%}", "")]
    {
        let source = [begin, &again.repeat((255 << 10) / again.len()), end].concat();
        let (_, peak) = peak_of(|| render(&source));
        assert!(peak <= MOST, "{peak} bytes were held: {again}");
    }
}

#[test]
fn what_a_template_held_is_given_back() {
    let before = held();
    for source in [repeated("{% set ns.l = [ns.l, ns.l] %}"), repeated("{% set ns.a = ns %}"), large("{{ l | join }}")]
    {
        // Twice: the first time, threads' own buffers are made.
        for _ in 0..2 {
            assert!(render(&source).is_err());
        }
    }
    let left = held() - before;
    assert!(left < 64 << 10, "{left} bytes were left");
}

fn render(source: &str) -> Result<String, String> {
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let template = ChatTemplate::new(Some(source), "<s>", "</s>").map_err(|error| error.to_string())?;
    template.render(&[message("system", "Be brief."), message("user", "Hi!")]).map_err(|error| error.to_string())
}
