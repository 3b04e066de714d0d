//! The features that templates in use have, in templates of our own.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.into(), content: content.into() }
}

#[test]
fn renders_the_formats_in_use() {
    let chatml = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
                  '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let llama = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]\
                 {% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
    let blocks =
        "{% for m in messages %}\n  {% if loop.first %}\nA\n  {% endif %}\n{{ m.content | trim }}\n{% endfor %}";
    for (template, expect) in [
        (Some(chatml), "<|im_start|>user\n  hi <|im_end|>\n<|im_start|>assistant\n"),
        (Some(llama), "<s>[INST] hi [/INST]"),
        (Some(blocks), "A\nhi\n"),
        (None, "user:   hi \nassistant: "),
    ] {
        let template = ChatTemplate::new(template, "<s>", "</s>").unwrap();
        assert_eq!(template.render(&[message("user", "  hi ")]).unwrap(), expect);
    }
}

#[test]
fn python_methods() {
    for (expression, expect) in [
        ("'abc'.startswith('ab')", "True"),
        ("'a,b'.split(',')[1]", "b"),
        ("'xAx'.strip('x').lower()", "a"),
        ("'a-b'.replace('-', '+').upper()", "A+B"),
        ("{'k': 1}.get('z', 7)", "7"),
    ] {
        let template = ChatTemplate::new(Some(&format!("{{{{ {expression} }}}}")), "", "").unwrap();
        assert_eq!(template.render(&[]).unwrap(), expect, "{expression}");
    }
}

#[test]
fn hostile_templates_end_in_an_error() {
    let include = "{% include 'chat' %}";
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let refused = ["{{ raise_exception('no system role') }}", "{{ messages.nothing.at.all }}"];
    // Names of fields that minijinja panics at.
    let fields =
        ["{{ '%%%d %(é' | format('x') }}", "{{ '%(é)s' | format(x=8) }}", "{{ ('%(' ~ 'é)s') | format('x') }}"];
    for source in [endless, include].into_iter().chain(refused).chain(fields) {
        let template = ChatTemplate::new(Some(source), "", "").unwrap();
        assert!(template.render(&[message("user", "hi")]).is_err(), "{source}");
    }
    assert!(ChatTemplate::new(Some("{% for %}"), "", "").is_err());
}

#[test]
fn features_of_templates_in_use() {
    let date = "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%A, %-d %B %Y %H:%M:%S %j %y %I %p %%') }}";
    let roles = "{% set ns = namespace(system='', n=0) %}{% for m in messages %}{% if m.role == 'system' %}\
                 {% set ns.system = m.content %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% if ns.n > 2 %}\
                 {% break %}{% endif %}[{{ loop.index0 }}:{{ m.role }}]{% endfor %}{{ ns.system }}";
    let alternate = "{% for m in messages[1:] %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
                     {{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}fine";
    let optional = "{% if tools is defined and tools %}tools{% elif tools is not none and not custom is defined %}none\
                    {% endif %}{{ messages|length }}{{ messages[-1].content | trim | upper }}\
                    {{ messages | selectattr('role', 'equalto', 'user') | list | length }}";
    let json = "{{ messages[0] | tojson }}{{ {'a': [1, 2.5, none, true], 'é': '<b>\"'} | tojson }}\
                {{ [] | tojson(indent=4) }}{{ {'k': [1, {}]} | tojson(indent=2) }}";
    let generation = "{% for m in messages %}\n{%- if m.role == 'assistant' %}\n{%- generation -%}  {{ m.content }} \
                      {%- endgeneration %}!{%- endif %}{% endfor %}";
    let macros = "{%- macro turn(m, end='.') -%}\n<{{ m.role[:1] }}>{{ m.content.split(' ')[-1].strip() }}{{ end }}\n\
                  {%- endmacro -%}\n{%- for m in messages if m.role != 'system' -%}\n{{- turn(m, end=';') -}}\n{%- endfor -%}";
    let thinking = "{%- set last = messages[-1].content -%}{%- if '</think>' in last -%}\
                    {{ last.split('</think>')[-1].lstrip('\\n') }}{%- else -%}{{ last.rstrip() ~ '?' }}{%- endif -%}\
                    {{ 'x' if enable_thinking is defined and enable_thinking is false else 'y' }}";
    let turns = "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is string -%}\n\
                 {%- set first = messages[0]['content'] + '\\n\\n' -%}\n{%- endif -%}\n{%- set rest = messages[1:] -%}\n\
                 {%- else -%}\n{%- set first = '' -%}\n{%- set rest = messages -%}\n{%- endif -%}\n\
                 {%- for m in rest -%}\n{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n\
                 {{ raise_exception('roles must alternate') }}\n{%- endif -%}\n\
                 {%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}\n\
                 {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}\n\
                 {%- if m['content'] is string -%}\n{{ m['content'] | trim }}\n{%- elif m['content'] is iterable -%}\n\
                 {{ raise_exception('parts') }}\n{%- endif -%}\n{{ '<end_of_turn>\\n' }}\n{%- endfor -%}\n\
                 {%- if add_generation_prompt -%}\n{{ '<start_of_turn>model\\n' }}\n{%- endif -%}";
    let four = [("system", "be brief"), ("user", "hello there"), ("assistant", "hi"), ("user", " and now ")];
    let messages: Vec<ChatMessage> = four.iter().map(|(role, content)| message(role, content)).collect();
    for (source, expect) in [
        (date, "26 Jul 2024|Friday, 26 July 2024 00:00:00 208 24 12 AM %"),
        (roles, "[1:user][2:assistant]be brief"),
        (alternate, "fine"),
        (optional, "4AND NOW2"),
        (
            json,
            "{\"role\": \"system\", \"content\": \"be brief\"}{\"a\": [1, 2.5, null, true], \"é\": \"<b>\\\"\"}[]{\n  \
             \"k\": [\n    1,\n    {}\n  ]\n}",
        ),
        (generation, "hi!"),
        (macros, "<u>there;<a>hi;<u>;"),
        (
            turns,
            "<s><start_of_turn>user\nbe brief\n\nhello there<end_of_turn>\n<start_of_turn>model\nhi<end_of_turn>\n\
             <start_of_turn>user\nand now<end_of_turn>\n<start_of_turn>model\n",
        ),
        (thinking, " and now?y"),
    ] {
        let template = ChatTemplate::new(Some(source), "<s>", "</s>").unwrap();
        assert_eq!(template.render(&messages).unwrap(), expect, "{source}");
    }
    let twice = [&messages[..2], &messages[1..2]].concat();
    let error = ChatTemplate::new(Some(alternate), "", "").unwrap().render(&twice).unwrap_err();
    assert!(error.to_string().contains("roles must alternate"), "{error}");
}

#[test]
fn the_callers_time_is_told() {
    let source = "{{ strftime_now('%Y-%m-%d %H:%M:%S %a') }}";
    let mut template = ChatTemplate::new(Some(source), "", "").unwrap();
    for (unix_s, expect) in [
        (0, "1970-01-01 00:00:00 Thu"),
        (951_782_400, "2000-02-29 00:00:00 Tue"),
        (1_735_689_599, "2024-12-31 23:59:59 Tue"),
        (-1, "1969-12-31 23:59:59 Wed"),
    ] {
        template.set_now(unix_s);
        assert_eq!(template.render(&[]).unwrap(), expect);
    }
    for extreme in [i64::MIN, i64::MAX] {
        template.set_now(extreme);
        assert!(template.render(&[]).is_ok());
    }
    let wide = ChatTemplate::new(Some("{{ strftime_now('%999999999d') }}"), "", "").unwrap();
    assert!(wide.render(&[]).unwrap_err().to_string().contains("two digits"));
}

/// Python's weeks, and numbers with flags, at the ends of years.
#[test]
fn weeks_of_years() {
    // From Python's strftime('%Y-%m-%d %G-%V-%u %U %W %j %e %-m').
    for (unix_s, expect) in [
        (1_104_537_600, "2005-01-01 2004-53-6 00 00 001  1 1"),
        (1_230_681_600, "2008-12-31 2009-01-3 52 52 366 31 12"),
        (1_262_304_000, "2010-01-01 2009-53-5 00 00 001  1 1"),
        (1_704_067_200, "2024-01-01 2024-01-1 00 01 001  1 1"),
        (951_782_400, "2000-02-29 2000-09-2 09 09 060 29 2"),
    ] {
        let source = "{{ strftime_now('%Y-%m-%d %G-%V-%u %U %W %j %e %-m') }}";
        let mut template = ChatTemplate::new(Some(source), "", "").unwrap();
        template.set_now(unix_s);
        assert_eq!(template.render(&[]).unwrap(), expect);
    }
}

#[test]
fn a_broken_template_says_so_when_it_is_needed() {
    let error = ChatTemplate::broken("no endfor").render(&[message("user", "hi")]).unwrap_err().to_string();
    assert!(error.contains("no endfor") && error.contains("completed without it"), "{error}");
}

#[test]
fn results_and_sources_are_bounded() {
    // Lists in each other are taken down one inside the other; so deep that it hurts must be out of reach.
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let error = ChatTemplate::new(Some(deep), "", "").unwrap().render(&[]).unwrap_err().to_string();
    assert!(error.contains("64 deep"), "{error}");
    let steps = "{% for i in range(90000) %}{% endfor %}";
    let error = ChatTemplate::new(Some(steps), "", "").unwrap().render(&[]).unwrap_err().to_string();
    assert!(error.contains("fuel"), "{error}");
    // A long conversation is not a hostile template.
    let many = vec![message("user", "hi"); 5000];
    let each = "{% for m in messages %}{% if m.role == 'user' and m.content is string %}{{ m.content | trim }}{% endif %}{% endfor %}";
    assert_eq!(ChatTemplate::new(Some(each), "", "").unwrap().render(&many).unwrap().len(), 10_000);
    assert!(
        ChatTemplate::new(Some(&"x".repeat((256 << 10) + 1)), "", "").unwrap_err().to_string().contains("more than")
    );
}

/// Whatever takes long asks before it begins whether anybody waits for it.
#[test]
fn a_render_can_be_stopped() {
    let bombs = [
        "{% for i in range(9000) %}{% if messages == [] %}{% endif %}{% endfor %}",
        "{% for i in range(9000) %}{% set x = 'a' in messages[0].content %}{% endfor %}",
        "{% for i in range(9000) %}{{ messages[0].content | length }}{% endfor %}",
        "{% for i in range(9000) %}{% set x = messages[0].content.upper() %}{% endfor %}",
        "{% for i in range(9000) %}{% set x = 'a' ~ i %}{% endfor %}",
        "{% for i in range(9000) %}{% set x = range(3) | list | sort %}{% endfor %}",
        "{% for i in range(9000) %}{% set x = messages is sequence %}{{ x }}{% endfor %}",
        "{% for i in range(9000) %}{% set x = messages is eq [1] %}{% endfor %}",
        "{% for i in range(9000) %}.{% endfor %}",
        "{% set l = range(9000) | list %}{{ l | select('in', l) | list | length }}",
        "{% set l = range(9000) | list %}{{ l | reject('eq', 1) | list | length }}",
        "{% set l = range(9000) | list %}{{ l | selectattr('a', 'in', l) | list | length }}",
        "{% set l = range(9000) | list %}{{ l | rejectattr('a', 'sameas', l) | list | length }}",
    ];
    for source in bombs {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut template = ChatTemplate::new(Some(source), "", "").unwrap();
        template.stop_when(Some(Arc::new(move || count.fetch_add(1, Ordering::Relaxed) >= 100)));
        let result = template.render(&[message("user", "hi")]);
        assert!(matches!(result, Err(EngineError::Stopped)), "{source}: {result:?}");
        assert!(asked.load(Ordering::Relaxed) < 110, "{source}");
        template.stop_when(None);
        let result = template.render(&[message("user", "hi")]);
        assert!(!matches!(result, Err(EngineError::Stopped)), "{source}");
    }
}

/// What Jinja does beyond the formats in use, as it was before the tree was rewritten.
#[test]
fn operators_and_builtins() {
    for (source, expect) in [
        ("{{ 1 + 2 * 3 - 4 }}|{{ 7 // 2 }}|{{ 7 / 2 }}|{{ 7 % 4 }}|{{ 2 ** 5 }}|{{ -3 + 1 }}", "3|3|3.5|3|32|-2"),
        ("{{ 1.5 + 1 }}|{{ 2 * 0.5 }}|{{ true + 1 }}|{{ 9223372036854775807 + 1 }}", "2.5|1.0|2|9223372036854775808"),
        ("{{ 'a' + 'b' ~ 1 ~ none ~ [1, 'x'] ~ missing }}", "ab1None[1, 'x']"),
        ("{{ 'ab' * 3 }}|{{ 3 * 'ab' }}|{{ 'x' * 0 }}|{{ 'x' * -1 }}|{{ [0, 1] * 2 }}", "ababab|ababab|||[0, 1, 0, 1]"),
        ("{{ [1] + [2, 3] }}|{{ ([1] + [2])[-1] }}|{{ (1, 2) + (3,) }}", "[1, 2, 3]|2|(1, 2, 3)"),
        (
            "{{ 'hello'[1:3] }}|{{ 'hello'[::-1] }}|{{ [1, 2, 3][::-1] }}|{{ [1, 2, 3][1:] | length }}",
            "el|olleh|[3, 2, 1]|2",
        ),
        ("{{ 'a-b-c' | replace('-', '+') }}|{{ [1, 2] | join(', ') }}|{{ ['a', 'b'] | join }}", "a+b+c|1, 2|ab"),
        (
            "{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | join('/') }}|{{ ['a', 'b'] | map('upper') | list }}",
            "1/2|['A', 'B']",
        ),
        ("{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent(width=1, first=true) }}", "a\n  b| a\n b"),
        ("{{ '%s is %d' | format('x', 3) }}|{{ '%05.1f' | format(2.25) }}", "x is 3|002.2"),
        ("{{ '%(a)s é %%(é) %(b)s' | format(a='ä', b=2) }}", "ä é %(é) 2"),
        ("{{ [3, 1, 2] | sort | first }}|{{ [1, 2, 3] | sum }}|{{ [1, 1, 2] | unique | list }}", "1|6|[1, 2]"),
        ("{{ {'b': 1, 'a': 2} | dictsort }}|{{ {'a': 2}.items() | list }}", "[('a', 2), ('b', 1)]|[('a', 2)]"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% set a, b = [1, 2] %}{{ a }}{{ b }}{% with c = 3 %}{{ c }}{% endwith %}", "123"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}{% filter upper %}b{% endfilter %}", "A1B"),
        (
            "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{% call m(*[3], **{'b': 4}) %}c{% endcall %}",
            "1234c",
        ),
        (
            "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}",
            "123",
        ),
        (
            "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}{{ loop.previtem }}{{ x }};{% else %}none{% endfor %}",
            "11;213;",
        ),
        ("{% block b %}in a block{% endblock %}", "in a block"),
        ("{{ '<b>' }}{{ '<b>' | e }}{{ ('<b>' | safe) ~ [] }}", "<b>&lt;b&gt;<b>[]"),
        (
            "{{ [] is sequence }}{{ {} is mapping }}{{ 'a' in 'abc' }}{{ 1 not in [2] }}{{ 'x' is defined }}",
            "TrueTrueTrueTrueTrue",
        ),
        ("{{ {'a': [1.0, 1e3, 'é\n\t\"']} | tojson }}", "{\"a\": [1.0, 1000.0, \"é\\n\\t\\\"\"]}"),
        (
            "{{ dict(a=1, **{'b': 2}) | tojson }}{{ namespace(a=1).a }}{{ range(3) | list }}",
            "{\"a\": 1, \"b\": 2}1[0, 1, 2]",
        ),
    ] {
        let template = ChatTemplate::new(Some(source), "", "").unwrap();
        assert_eq!(template.render(&[]).unwrap_or_else(|error| error.to_string()), expect, "{source}");
    }
}

#[test]
fn slices_are_pythons() {
    for (bounds, letters, list) in [
        ("1:3", "bc", "[2, 3]"),
        (":", "abcd", "[1, 2, 3, 4]"),
        ("-2:", "cd", "[3, 4]"),
        (":-3", "a", "[1]"),
        ("3:1", "", "[]"),
        ("::2", "ac", "[1, 3]"),
        ("::-1", "dcba", "[4, 3, 2, 1]"),
        ("2::-1", "cba", "[3, 2, 1]"),
        (":1:-1", "dc", "[4, 3]"),
        ("-1:-4:-2", "db", "[4, 2]"),
        ("1:3:-1", "", "[]"),
        ("-99:99:99", "a", "[1]"),
        ("99:-99:-99", "d", "[4]"),
        ("9223372036854775807:-9223372036854775807:-9223372036854775807", "d", "[4]"),
    ] {
        let source = format!(
            "{{{{ 'abcd'[{bounds}] }}}}{{{{ [1, 2, 3, 4][{bounds}] }}}}{{{{ ''[{bounds}] }}}}{{{{ [][{bounds}] }}}}"
        );
        let template = ChatTemplate::new(Some(&source), "", "").unwrap();
        assert_eq!(template.render(&[]).unwrap(), format!("{letters}{list}[]"), "{bounds}");
    }
    for source in ["{{ 'a'[::0] }}", "{{ 'a'['b':] }}", "{{ 1[1:] }}"] {
        assert!(ChatTemplate::new(Some(source), "", "").unwrap().render(&[]).is_err(), "{source}");
    }
    let reversed = ChatTemplate::new(Some("{% for m in messages[::-1] %}{{ m.content }}{% endfor %}"), "", "").unwrap();
    assert_eq!(reversed.render(&[]).unwrap(), "", "of no messages");
}

/// Each of these is what a template with nothing evil in mind does at every message of a long conversation.
#[test]
fn long_conversations_stay_within_the_budget() {
    let pairs = |n: usize, length: usize| -> Vec<ChatMessage> {
        (0..n).map(|i| message(if i % 2 == 0 { "user" } else { "assistant" }, &"word ".repeat(length))).collect()
    };
    for each in [
        "{% set ns.text = ns.text + m.role + ': ' + m.content + '\n' %}",
        "{% set ns.kept = ns.kept + [m] %}",
        "{{ (messages | selectattr('role', 'equalto', 'user') | list | last).content[:1] }}",
        "{% if loop.index0 == messages | length - 1 %}{{ messages[1:] | length }}{% endif %}",
        "{{ m.content.split(' ')[-1].strip().upper() ~ m | tojson ~ (m.content | trim | replace('o', '0'))[::-1] }}",
    ] {
        let source = format!(
            "{{% set ns = namespace(text='', kept=[]) %}}{{% for m in messages %}}{each}{{% endfor %}}{{{{ ns.text }}}}"
        );
        let template = ChatTemplate::new(Some(&source), "", "").unwrap();
        for messages in [pairs(4, 50_000), pairs(300, 20), pairs(600, 10)] {
            let rendered = template.render(&messages);
            assert!(rendered.is_ok(), "{} messages, {each}: {rendered:?}", messages.len());
        }
    }
}

/// Operators one after the other lie in each other in the tree, which is walked through and taken down recursively.
#[test]
fn long_chains_do_not_end_the_stack() {
    // A browser's worker has a stack of about a megabyte.
    let rendered = |source: String| {
        let render = move || ChatTemplate::new(Some(&source), "", "").and_then(|template| template.render(&[]));
        std::thread::Builder::new().stack_size(1 << 20).spawn(render).unwrap().join().unwrap()
    };
    for (begin, again, end) in [
        ("{{ 1", " + 1", " }}"),
        ("{{ 1", " - 1", " }}"),
        ("{{ 1", " ** 1", " }}"),
        ("{{ 'a'", " ~ a", " }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "[0:]", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ a", " | trim", " }}"),
        ("{{ a", " is defined", " }}"),
        ("{{ a", " == 1", " }}"),
        ("{{ a", " in a", " }}"),
        ("{{ a", " and a", " }}"),
        ("{{ a", " if a else a", " }}"),
        ("{{ ", "not ", "a }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ ", "[", "1 }}"),
        ("{% if a %}", "{% elif a %}", "{% endif %}"),
        ("", "{% if a %}", ""),
        ("", "{% macro a() %}", ""),
        ("{% filter trim", " | trim", " %}{% endfilter %}"),
    ] {
        for times in [400, (240 << 10) / again.len()] {
            let result = rendered([begin, &again.repeat(times), end].concat());
            assert!(times < 1000 || result.is_err(), "{times} times {again}: {result:?}");
        }
    }
    let many = "{{ 'a' ~ 1 }}{% if a %}{% endif %}".repeat(1000);
    assert_eq!(rendered(many).unwrap().len(), 2000, "one after the other is not in each other");
}

/// An order that contradicts itself (large whole numbers equal the floats that they are rounded to) makes no sort panic.
#[test]
fn orders_that_contradict_themselves_do_no_harm() {
    let numbers = "[9007199254740992, 9007199254740993, 9007199254740992.0, 9007199254740994]";
    for each in ["sort", "unique | list", "groupby(0) | list", "sort(reverse=true) | tojson(sort_keys=true)"] {
        let source = format!("{{{{ ({numbers} * 50) | {each} | length > 0 }}}}");
        let rendered = ChatTemplate::new(Some(&source), "", "").unwrap().render(&[]);
        assert_eq!(rendered.unwrap(), "True", "{each}");
    }
}
