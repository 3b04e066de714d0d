"""Writes tests/golden/templates.json: what Python's Jinja2 makes of templates, for chat templates to be rendered alike.

    VENV/bin/pip install jinja2==3.1.6
    VENV/bin/python tests/golden/make_templates.py

The environment is the one that `transformers` renders chat templates in: an immutable sandbox with trim_blocks and
lstrip_blocks, loop controls, `tojson` as a plain `json.dumps`, `raise_exception` and `strftime_now` (here of a fixed
moment). The table goes through the built-in filters, tests and functions of Jinja2's documentation one after the other, then
through the methods of Python's texts, mappings and lists, then through the statements. Where Python raises an error,
`expect` is null, and an error is what is expected.

What is not in the table is known to differ: methods as values without a call, bytes, `varargs` and `kwargs` of macros, the
escaping of HTML (a prompt is none), `self`, the text of a range, a loop over none and an order between values of different
kinds (nothing and false here, errors there), the keys 1 and true of one mapping, `lipsum`, and which item `random` takes.
"""

import json
from datetime import datetime, timezone
from pathlib import Path

from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = Path(__file__).parent / "templates.json"
# 2024-02-05 is a Monday, in the sixth week however weeks are counted.
NOW = 1707145387

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What is\tso?\n"},
        {"role": "assistant", "content": "It's <b>Nairobi</b>."},
    ],
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_generation_prompt": True,
    "tools": None,
    "documents": None,
}

# Single expressions.
FILTERS = r"""
-3 | abs
2.5 | abs
'x' | attr('nothing') is undefined
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
[] | batch(3) | list
'hELLO wORLD' | capitalize
'' | capitalize
'abc' | center(9)
'abcd' | center(9)
'abc' | center(2)
'abc' | center | length
missing | default('x')
missing | d('x')
'' | default('x')
'' | default('x', true)
none | default('x')
none | default('x', boolean=true)
{'b': 1, 'A': 2, 'c': 0} | dictsort
{'b': 1, 'A': 2, 'c': 0} | dictsort(true)
{'b': 1, 'A': 2, 'c': 0} | dictsort(by='value')
{'b': 1, 'A': 2, 'c': 0} | dictsort(false, 'value', true)
{'b': 1, 'a': 2} | dictsort(reverse=true)
'<a href="x">&\'' | e
'<a>' | escape
'<a>' | forceescape
100 | filesizeformat
1 | filesizeformat
1000 | filesizeformat
1500000 | filesizeformat
1024 | filesizeformat(true)
1500000 | filesizeformat(binary=true)
12345678901234 | filesizeformat
[1, 2] | first
'abc' | first
[] | first is undefined
'42.5' | float
'x' | float
'x' | float(1.5)
7 | float
none | float(2.0)
'%s, %s!' | format('Hello', 'World')
'%(a)s-%(b)d' | format(a='x', b=3)
'%5.2f|%-5s|%05d|%x|%X|%o|%e|%g|%%|%c|%r' | format(3.14159, 'ab', 42, 255, 255, 8, 12345.678, 0.0001, 'z', 'q')
'%+d|% d|%s' | format(3, 4, [1, 'a'])
'%s' | format(none)
[{'c': 'x', 'n': 1}, {'c': 'y', 'n': 2}, {'c': 'x', 'n': 3}] | groupby('c')
[{'c': 'x', 'n': 1}, {'n': 2}] | groupby('c', default='z') | map('first') | list
[{'c': 'B', 'n': 1}, {'c': 'a', 'n': 2}, {'c': 'b', 'n': 3}] | groupby('c') | map('first') | list
[{'c': 'B', 'n': 1}, {'c': 'b', 'n': 3}] | groupby('c', case_sensitive=true) | map('first') | list
[('a', 1), ('b', 2), ('a', 3)] | groupby(0) | map(attribute='list') | list
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2)
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent(2, blank=true)
'a\nb\n\nc' | indent(width='--', first=true)
'a\nb\n' | indent(1)
'42' | int
'42.9' | int
'x' | int
'x' | int(7)
'0x1F' | int(0, 16)
'1F' | int(base=16)
'0b101' | int(base=2)
'0o17' | int(0, 8)
-3.9 | int
true | int
none | int
'  12 ' | int
'1_000' | int
{'a': 1, 'b': 2} | items | list
missing | items | list
'ab' | items | list
[1, 2, 3] | join
[1, 2, 3] | join('|')
['a', none, 2.5, true] | join(', ')
[{'n': 'a'}, {'n': 'b'}] | join(', ', attribute='n')
[[1, 'x'], [2, 'y']] | join('-', attribute=1)
'abc' | join('.')
{'a': 1, 'b': 2} | join(',')
[1, 2] | last
'abc' | last
[] | last is undefined
[1, 2] | length
'añb' | length
{'a': 1} | count
5 | length
(1, 2) | list
'abc' | list
{'a': 1, 'b': 2} | list
range(3) | list
'ÄBC' | lower
5 | lower
[{'n': 'a'}, {'n': 'b'}] | map(attribute='n') | list
[{'n': 'a'}, {}] | map(attribute='n', default='z') | list
[{'n': {'m': 1}}] | map(attribute='n.m') | list
[['a', 'b']] | map(attribute=0) | list
['a', 'b'] | map('upper') | join
['1', '2'] | map('int') | sum
[1, 2] | map('default', 3) | list
['a-b'] | map('replace', '-', '+') | list
[3, 1, 2] | max
[3, 1, 2] | min
['b', 'A', 'c'] | max
['b', 'A', 'c'] | min
['b', 'A', 'c'] | min(case_sensitive=true)
['a', 'B'] | max(case_sensitive=true)
[{'n': 2}, {'n': 3}] | max(attribute='n')
[{'n': 2}, {'n': 3}] | min(attribute='n')
[] | max is undefined
{'b': 1, 'a': [1, 'x']} | pprint
'x' | pprint
[1, 2] | pprint
[7] | random
[] | random is undefined
[1, 2, 3, 4] | reject('odd') | list
[0, 1, '', 'a', none] | reject | list
['a', 'b'] | reject('equalto', 'a') | list
[{'r': 'u'}, {'r': 's'}, {}] | rejectattr('r') | list
[{'r': 'u'}, {'r': 's'}] | rejectattr('r', 'equalto', 'u') | list
[{'r': 'u'}, {'r': 's'}] | rejectattr('r', 'in', ['u']) | list
'aaa' | replace('a', 'b')
'aaa' | replace('a', 'b', 2)
'abc' | replace('', '-')
'a1' | replace(1, 2)
123 | replace('2', 'x')
'abc' | reverse
[1, 2, 3] | reverse | list
range(3) | reverse | list
(1, 2) | reverse | list
42.55 | round
42.55 | round(1)
42.55 | round(1, 'floor')
42.51 | round(1, 'ceil')
2.5 | round
3.5 | round
-2.5 | round
42 | round
1234 | round(-2)
42.4 | round(method='ceil') | int
0.125 | round(2)
'<b>' | safe
[1, 2, 3, 4] | select('even') | list
[0, 1, '', 'a', none] | select | list
[1, 2, 3] | select('gt', 1) | list
[1, 2, 3] | select('divisibleby', 3) | list
[1, 'a', none] | select('string') | list
[{'r': 'u'}, {'r': 's'}, {}] | selectattr('r') | list
[{'r': 'u'}, {'r': 's'}, {}] | selectattr('r', 'defined') | list
[{'r': {'x': 1}}, {'r': {'x': 0}}] | selectattr('r.x') | list
messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first
messages | selectattr('role', '==', 'user') | list | length
messages | selectattr('role', 'in', ['system', 'user']) | list | length
[1, 2, 3, 4, 5, 6, 7] | slice(3) | list
[1, 2, 3, 4, 5, 6, 7] | slice(3, 'x') | list
[1] | slice(3) | list
[3, 1, 2] | sort
[3, 1, 2] | sort(true)
['b', 'A', 'c'] | sort
['b', 'A', 'c'] | sort(case_sensitive=true)
[{'n': 2, 'm': 'x'}, {'n': 1, 'm': 'y'}] | sort(attribute='n')
[{'n': 2, 'm': 'b'}, {'n': 1, 'm': 'b'}, {'n': 3, 'm': 'a'}] | sort(attribute='m,n')
[{'n': 2, 'm': 'b'}, {'n': 1, 'm': 'b'}] | sort(attribute='m', reverse=true)
'bca' | sort
{'b': 1, 'a': 2} | sort
[1, 'a'] | sort
5 | string
[1, 'a', none, 1.0, true] | string
{'a': {'b': 'it\'s'}} | string
none | string
'<p>a  <b>b</b>\n c</p> <!-- x -->d &amp; e' | striptags
[1, 2, 3] | sum
[1, 2.5] | sum
[] | sum
[] | sum(start=5)
[{'n': 2}, {'n': 3}] | sum(attribute='n')
[{'n': 2}, {'n': 3}] | sum('n', 10)
'hello wORLD it\'s foo-bar (baz) x1y' | title
'über élan' | title
{'b': 1, 'a': [1, 2.5, none, true]} | tojson
{'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true)
{'b': 1, 'a': [1, 2]} | tojson(indent=2)
{'b': 1, 'a': [1, 2]} | tojson(2)
{'b': 1, 'a': [1, 2]} | tojson(true)
{'b': [], 'a': {}} | tojson(indent=4)
{'b': 1, 'a': [1, 2]} | tojson(separators=(',', ':'))
{'b': 1, 'a': [1, 2]} | tojson(separators=(', ', ' = '), indent=1)
{'b': 1} | tojson(indent=0)
{'b': 1} | tojson(indent='--')
[1, 2] | tojson(indent=none)
'é"\\/\n\t\r\b <>&\'\u2028🦀' | tojson
'é"\\/\n<>🦀' | tojson(ensure_ascii=true)
{'é': '<>'} | tojson(ensure_ascii=true)
{'é': '<>'} | tojson(ensure_ascii=false)
{1: 'a', none: 'c', 1.5: 'd'} | tojson
[1.0, 1e3, 1e16, 1e-5, 0.1, 123456789012345678901234567890, -0.0] | tojson
(1, 2) | tojson
none | tojson
messages | tojson
messages[0] | tojson
missing | tojson
range(3) | list | tojson
'  a b  ' | trim
'xxaxx' | trim('x')
'\n\ta\r\n' | trim
5 | trim
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, true)
'foo bar baz qux' | truncate(11)
'foo bar baz qux' | truncate(11, false, '...', 0)
'foo bar baz qux' | truncate(9, end='~', leeway=0)
'foo' | truncate(2, true, '', 0)
['a', 'A', 'b', 'a'] | unique | list
['a', 'A', 'b', 'a'] | unique(true) | list
[1, 2, 1] | unique | list
[{'n': 1, 'm': 2}, {'n': 1, 'm': 3}] | unique(attribute='n') | list
'äbc' | upper
'a b/c?d=é&f' | urlencode
{'a': 1, 'b c': 'x&y'} | urlencode
[('a', 1), ('b', 2)] | urlencode
'see https://example.com/a?b=1 and www.example.org, x@example.net (http://a.b)' | urlize
'see https://example.com/a/long/path' | urlize(12, true)
'https://example.com' | urlize(target='_blank', rel='me')
'one two  three\nfour' | wordcount
'' | wordcount
'foo bar baz qux quux' | wordwrap(8)
'foo bar\nbaz quuuuuuuux' | wordwrap(5)
'foo quuuuuuuux' | wordwrap(5, false)
'foo bar baz' | wordwrap(7, wrapstring='|')
{'class': 'my', 'missing': none, 'id': 'a"b', 'n': 1} | xmlattr
{'class': 'my'} | xmlattr(false)
{'a b': 'my'} | xmlattr
'x' | nothing_known
"""

TESTS = r"""
true is boolean
1 is boolean
range is callable
5 is callable
messages is defined
missing is defined
missing.deep is defined
messages[9] is defined
tools is defined
tools is none
tools is not none
documents is none
missing is none
21 is divisibleby 7
21 is divisibleby(4)
1 is eq 1
1 is equalto 1
'a' is == 'b'
1 is ne 2
1 is != 1
1 is lt 2
1 is < 2
1 is lessthan 2
1 is le 1
2 is gt 1
2 is > 1
2 is greaterthan 1
2 is ge 3
'<a>' is escaped
('<a>' | safe) is escaped
2 is even
3 is even
3 is odd
false is false
0 is false
true is true
1 is true
'upper' is filter
'nothing' is filter
1.0 is float
1 is float
1 is in [1, 2]
'a' is in 'abc'
'a' is in {'a': 1}
1 is not in [1]
1 is integer
true is integer
1.0 is integer
[] is iterable
'a' is iterable
{} is iterable
5 is iterable
missing is iterable
'abc' is lower
'aBc' is lower
'1' is lower
'ABC' is upper
'ABC' is not upper
{} is mapping
[] is mapping
none is none
false is none
1 is number
1.5 is number
true is number
'1' is number
1 is sameas 1
none is sameas none
true is sameas true
1 is sameas true
[] is sequence
'a' is sequence
{} is sequence
5 is sequence
'a' is string
5 is string
'odd' is test
'nothing' is test
missing is undefined
messages is undefined
5 is nothing_known
"""

METHODS = r"""
'hELLO wORLD'.capitalize()
'STRASSE ß'.casefold()
'ab'.center(6)
'ab'.center(5, '*')
'banana'.count('an')
'banana'.count('a', 2)
'banana'.count('a', 2, 4)
'banana'.count('')
'abc'.endswith('bc')
'abc'.endswith(('x', 'c'))
'abc'.endswith('b', 0, 2)
'a\tb'.expandtabs()
'a\tbc\td'.expandtabs(4)
'banana'.find('an')
'banana'.find('an', 2)
'banana'.find('x')
'äbc'.find('c')
'{} and {}'.format(1, 'x')
'{0}{1}{0}'.format('a', 'b')
'{name}!'.format(name='Bob')
'{:>5}|{:<5}|{:^5}|{:05.1f}|{:x}|{:,}'.format('a', 'b', 'c', 2.25, 255, 1234567)
'{{}} {!r}'.format('x')
'banana'.index('nan')
'banana'.index('x')
'ab1'.isalnum()
'ab'.isalpha()
'aé'.isascii()
'12'.isdecimal()
'12'.isdigit()
'a_1'.isidentifier()
'1a'.isidentifier()
'ab1'.islower()
'½'.isnumeric()
'a b'.isprintable()
'a\n'.isprintable()
' \t'.isspace()
''.isspace()
'Hello World'.istitle()
'Hello world'.istitle()
'AB1'.isupper()
'-'.join(['a', 'b'])
'-'.join('abc')
'-'.join([1])
'ab'.ljust(4, '.') ~ '|'
'ab'.rjust(4) ~ '|'
'ÄB'.lower()
'  ab '.lstrip() ~ '|'
'xyab'.lstrip('yx')
'  ab '.rstrip() ~ '|'
'abxy'.rstrip('xy')
'  ab '.strip() ~ '|'
'xabx'.strip('x')
'xabx'.strip(none)
'a-b-c'.partition('-')
'abc'.partition('-')
'a-b-c'.rpartition('-')
'abc'.rpartition('-')
'prefixed'.removeprefix('pre')
'prefixed'.removeprefix('x')
'file.txt'.removesuffix('.txt')
'aaa'.replace('a', 'b')
'aaa'.replace('a', 'b', 2)
'abc'.replace('', '-')
'banana'.rfind('an')
'banana'.rindex('a')
'a b  c'.split()
'a b  c'.split(' ')
'a,b,c'.split(',', 1)
'a,b,c'.split(',', maxsplit=1)
'a,b,c'.split(sep=',', maxsplit=-1)
' a  b  c '.split(none, 1)
' a  b  c '.split(maxsplit=1)
''.split()
''.split(',')
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',', maxsplit=5)
' a  b  c '.rsplit(none, 1)
' a  b  c '.rsplit()
'a,b'.split('')
'x<think>y</think>z'.split('</think>')[-1]
'x<think>y</think>z'.split('</think>')[0].split('<think>')[-1]
'a\nb\r\nc\n'.splitlines()
'a\nb\r\nc\n'.splitlines(true)
'a\nb'.splitlines(keepends=true)
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.startswith('b', 1)
'aBc'.swapcase()
'hello wORLD it\'s'.title()
'äb'.upper()
'42'.zfill(5)
'-42'.zfill(5)
'x'.nothing_known()
{'a': 1, 'b': 2}.keys()
{'a': 1, 'b': 2}.keys() | list
{'a': 1, 'b': 2}.values() | list
{'a': 1, 'b': 2}.items() | list
{'a': 1}.items()
{'a': 1}.values()
{'a': 1}.get('a')
{'a': 1}.get('b')
{'a': 1}.get('b', 7)
{'a': 1}.copy()
{'a': 1}.pop('a')
{'a': 1}.update({'b': 2})
{'b': 1, 'a': 2} | list
{'items': 1}['items']
{'a': 1, 'b': 2}.keys() | first
'a' in {'a': 1}.keys()
{'a': 1, 'b': 2} | length
[1, 2, 1].count(1)
[1, 2, 1].index(2)
[1, 2].index(5)
[1, 2].copy()
[1, 2].append(3)
[1, 2].pop()
(1, 2, 1).count(1)
(1, 2).index(2)
5.5.is_integer()
2.0.is_integer()
(7).bit_length()
"""

EXPRESSIONS = r"""
1 + 2 * 3 - 4
7 // 2
-7 // 2
7 / 2
6 / 3
7 % 4
-7 % 4
7.5 % 2
2 ** 10
2 ** -1
-2 ** 2
2 ** 0.5
1 / 0
1 // 0
1.0
100000000000000000.0
1e16
1e22
1e-5
0.1 + 0.2
123456789.0
3.0 * 2
1_000
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] ~ missing
'ab' * 3
[1, 2] * 2
[1] + [2]
(1,) + (2,)
'a' 'b'
[1, 'a', "it's", 'a"b', 'a\'"b', '\n\t\\', 'é', '\x01']
{'a': 1, 'b': [true, none]}
(1,)
()
(1, 'a')
[(1, 2)]
1 == 1.0
'a' < 'b'
[1, 2] == [1, 2]
[1, 2] < [1, 3]
1 < 2 < 3
1 < 3 < 2
'a' in 'abc'
'b' not in ['a']
2 in (1, 2)
1 in {1: 2}
not true
not []
1 and 2
0 and 2
0 or 'x'
'' or []
none or false
'x' if true else 'y'
'x' if false
('x' if false) is undefined
true and not false
messages[0].role
messages[0]['role']
messages[-1].content
messages[5]
messages[5].role
messages[0].missing
messages[0].missing.deep
missing
missing.deep
missing['deep']
'abc'[0]
'abc'[-1]
'abc'[5]
'abc'[1:]
'abc'[::-1]
[1, 2, 3][:2]
[1, 2, 3][-2:]
[1, 2, 3][::2]
(1, 2, 3)[1:]
{'a': {'b': 1}}.a.b
{'a': 1}['z']
range(5) | list
range(2, 5) | list
range(5, 0, -2) | list
dict(a=1, b=2)
dict([('x', 1)])
namespace(a=1).a
joiner(', ')
cycler('a', 'b').next()
none
true
false
True
False
None
[none, true, false]
missing | length
missing | list
missing ~ 'x'
missing + 'x'
missing == none
missing == missing
'%s' % 'x'
'%s-%d' % ('x', 3)
1 if missing else 2
raise_exception('no')
strftime_now('%Y-%m-%d')
"""

STRFTIME = (
    "%a %A %w %d %b %B %m %y %Y %H %I %p %M %S %f %z %Z %j %U %W %c %x %X %% %G %u %V %C %D %e %F %g %h %k %l %P %r %R %T "
    "%-d %-m %-H %-I %-M %-S %-j %-y %_d %_H %0e %^a %^B %#Z %n %t"
).split() + ["%d %b %Y", "%A, %d %B %Y, %H:%M", "100%", "%Q", "äé%d🦀", "", "%-e", "%s"]

STATEMENTS = [
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}"
    "{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem.role if loop.previtem }}{{ loop.nextitem.role if loop.nextitem }}"
    "{{ loop.changed(m.role) }};{% endfor %}",
    "{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in {'b': 1, 'a': 2} %}{{ k }};{% endfor %}",
    "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}",
    "{% for x in [1, 2, 3, 4] if x is even %}{{ x }}{{ loop.index }}{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for c in 'abc' %}{{ c }}-{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }};{% endfor %}",
    "{% for x in missing %}x{% else %}none{% endfor %}",
    "{% for x in range(3) %}{% set y = x %}{% endfor %}{{ y is defined }}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.found }}{{ ns.n }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x | length }}",
    "{% set x | upper %}a{{ 1 }}b{% endset %}{{ x }}",
    "{% if messages[0].role == 'system' %}s{% elif false %}e{% else %}n{% endif %}",
    "{% if missing %}y{% else %}n{% endif %}",
    "{% macro m(a, b=[]) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1], **{'b': 2}) }}",
    "{% macro m(a, b=2) %}[{{ a }}|{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}",
    "{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(a) m() %}{{ a }}in{% endcall %}",
    "{% filter upper %}abc{% endfilter %}",
    "{% filter upper | reverse %}abc{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% raw %}{{ a }}{% endraw %}",
    "a{# comment #}b",
    "  {% if true %}\n  x\n  {% endif %}\n  y\n",
    "  {%- if true -%}\n  x\n  {%- endif -%}\n  y\n",
    "  {%+ if true %}x{% endif %}\n",
    "{{ 'a' }}\n{{ 'b' }}\n",
    "{{- ' a ' -}}   b",
    "{% generation %}x{% endgeneration %}",
    "{% block b %}x{% endblock %}",
    "{% do messages.append(1) %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% set j = joiner(', ') %}{% for m in messages %}{{ j() }}{{ m.role }}{% endfor %}",
    "{% set d = dict(a=1) %}{{ d.a }}{{ d['a'] }}{{ d | tojson }}",
    "{% set d = {} %}{% set d = dict(d, x=1) %}{{ d }}",
    "{% set x = [1] %}{% set x = x + [2] %}{{ x }}",
    "{{ messages | map(attribute='role') | join(',') }}",
    "{{ messages | map(attribute='content') | map('trim') | map('length') | list }}",
    "{% for g in messages | groupby('role') %}{{ g.grouper }}:{{ g.list | length }};{{ g[0] }}{% endfor %}",
    "{% for r in [1, 2, 3, 4, 5] | batch(2) %}{{ r | join }}|{% endfor %}",
    "{% for r in [1, 2, 3, 4, 5] | slice(2) %}{{ r | join }}|{% endfor %}",
    "{% set content = messages[1].content %}{{ content.strip() | replace('\\t', ' ') }}",
    "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}",
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ add_generation_prompt }}",
    "{% if tools is not none and tools | length > 0 %}t{% else %}n{% endif %}",
    "{% if tools %}t{% endif %}{% if tools is defined and tools is not none %}d{% endif %}",
    "{% if messages[0]['content'] is string %}s{% endif %}{% if messages[0]['content'] is not mapping %}m{% endif %}",
    "{% set loop_messages = messages[1:] %}{{ loop_messages | length }}{% set system_message = messages[0]['content'] %}{{ system_message }}",
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}{% endfor %}",
    "{{ ('a' if true else 'b') + 'c' }}",
    "{{ [1, 2, 3] | sum ~ 'x' }}",
    "{{ 'a' if missing is defined else 'b' }}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% for x in %}",
    "{{ 1 +",
    "{% endif %}",
    "{{ messages.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
]


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise TemplateError(message)

    def strftime_now(form):
        return datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None).strftime(form)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def main():
    sources = ["{{ " + line + " }}" for part in (FILTERS, TESTS, METHODS, EXPRESSIONS) for line in part.splitlines() if line]
    sources += ["{{ strftime_now(" + json.dumps(form, ensure_ascii=False) + ") }}" for form in STRFTIME]
    sources += STATEMENTS
    env, cases = environment(), []
    for source in sources:
        # What marks the assistant's words for training: transformers' own extension, which writes its inside.
        plain = source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        try:
            expect = env.from_string(plain).render(**VARIABLES)
        except Exception:
            expect = None
        # Addresses are of no interest.
        if expect is not None and " at 0x" in expect:
            continue
        cases.append({"source": source, "expect": expect})
    golden = {"now": NOW, "messages": VARIABLES["messages"], "cases": cases}
    OUT.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(len(cases), "cases,", sum(case["expect"] is None for case in cases), "errors")


if __name__ == "__main__":
    main()
