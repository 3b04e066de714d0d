//! The features that templates in use have, in templates of our own.

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
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    for source in [endless, "{{ raise_exception('no system role') }}", "{{ messages.nothing.at.all }}"] {
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
        (optional, "none4AND NOW2"),
        (
            json,
            "{\"content\": \"be brief\", \"role\": \"system\"}{\"a\": [1, 2.5, null, true], \"é\": \"<b>\\\"\"}[]{\n  \
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
    let unknown = ChatTemplate::new(Some("{{ strftime_now('%Q') }}"), "", "").unwrap();
    assert!(unknown.render(&[]).unwrap_err().to_string().contains("%Q"));
}

#[test]
fn results_and_sources_are_bounded() {
    let long = "{% for i in range(100) %}{{ 'abcdefghij' * 100000 }}{% endfor %}";
    let error = ChatTemplate::new(Some(long), "", "").unwrap().render(&[]).unwrap_err().to_string();
    assert!(error.contains("grows beyond"), "{error}");
    // Lists in each other are taken down one inside the other; so deep that it hurts must be out of reach.
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let error = ChatTemplate::new(Some(deep), "", "").unwrap().render(&[]).unwrap_err().to_string();
    assert!(error.contains("fuel"), "{error}");
    // A long conversation is not a hostile template.
    let many = vec![message("user", "hi"); 5000];
    let each = "{% for m in messages %}{% if m.role == 'user' and m.content is string %}{{ m.content | trim }}{% endif %}{% endfor %}";
    assert_eq!(ChatTemplate::new(Some(each), "", "").unwrap().render(&many).unwrap().len(), 10_000);
    assert!(ChatTemplate::new(Some(&"x".repeat((1 << 20) + 1)), "", "").unwrap_err().to_string().contains("more than"));
}
