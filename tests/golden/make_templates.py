"""Writes tests/golden/templates.json: what Python's Jinja2 makes of templates, for chat templates to be rendered alike.

    VENV/bin/pip install jinja2==3.1.6
    VENV/bin/python tests/golden/make_templates.py

The environment is the one that `transformers` renders chat templates in: an immutable sandbox with trim_blocks and
lstrip_blocks, loop controls, `tojson` as a plain `json.dumps`, `raise_exception` and `strftime_now` (here of a fixed
moment). The table goes through the built-in filters, tests and functions of Jinja2's documentation one after the other, then
through the methods of Python's texts, mappings and lists, then through the statements. Where Python raises an error,
`expect` is null, and an error is what is expected.

What is not in the table is known to differ: bytes and what makes them, `varargs` and `kwargs` of macros, an undefined value
given to a macro (here as none given), the escaping of HTML (a prompt is none), `self`, the texts of a range, a namespace and
`loop`, what is none where a list is wanted and an order between values of different kinds (nothing and false here, errors
there), the keys 1 and true of one mapping, methods of numbers and ranges, places in the views of mappings, names of
characters (`\\N{...}`), `attr` (of a mapping's items here), later assignments of one `with` (which see the former here),
`lipsum`, and which item `random` takes.
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
+3 | abs
'x' | abs
'a' | attr('upper')
'abc' | batch(2) | list
[1, 2, 3] | batch(linecount=2, fill_with=none) | list
'ß' | capitalize
none | capitalize
'abc' | center(width=7)
'aé' | center(6)
missing | default
none | default('x', false)
0 | default('x', true)
missing | default(default_value='x')
{'b': {'x': 1}, 'a': 2} | dictsort
[1, 2] | dictsort
none | e
[1, '<'] | e
'1000' | filesizeformat
999.5 | filesizeformat
none | first
{'a': 1} | first
range(3) | first
5 | first
'1e3' | float
'inf' | float
' 1.5 ' | float
true | float
'nan' | float
'%s' | format
'%s' | format(1, 2)
'%d' | format('a')
'%-+5d|' | format(3)
'%#x|%#o' | format(255, 8)
'%i|%u' | format(3.7, 4)
'%.3s|%5.1s|' | format('abcdef', 'xyz')
'%a' | format('é')
'%' | format(1)
'%y' | format(1)
'%(a)s' | format(b=1)
[] | groupby('x') | list
[{'a': {'b': 1}}, {'a': {'b': 0}}] | groupby('a.b') | map('first') | list
'a' | indent
'a\n\n\nb' | indent(1, false, true)
'a\r\nb' | indent(2)
'a\nb' | indent(width=3, first=True)
'' | indent(2, true)
'9' * 30 | int
'-0x10' | int(0, 16)
'1_0' | int(0)
'z' | int(base=36)
'12' | int(5, 2)
1e30 | int
'1e3' | int
'½' | int(3)
'+5' | int
'10' | int(9, 0)
[] | items | list
none | items | list
{} | items | list
[] | join(',')
5 | join
missing | join('x')
[1, [2, 3]] | join(',')
[none, none] | join('-')
['a', 'b'] | join(d='+')
[{'a': 1}] | join(attribute='b')
none | last
range(3) | last
none | length
missing | length
range(7) | length
true | length
5 | list
missing | list
none | lower
true | lower
[1, 2] | lower
[] | map('upper') | list
['a'] | map | list
['a'] | map('nothing_known') | list
[1, 2] | map('string') | join('+')
[{'a': 1}] | map(attribute='a', default=0) | list
[{'a': none}] | map(attribute='a', default=0) | list
['a,b'] | map('split', ',') | list
[[1, 2], [3]] | map('sum') | list
[[3, 1], [2]] | map('sort') | list
'bac' | max
['a', 'B'] | min
[{'n': 1, 'm': 2}, {'n': 1, 'm': 1}] | min(attribute='m')
missing | pprint
none | pprint
'it\'s' | pprint
[{'b': 1, 'a': 2}] | pprint
1.0 | pprint
missing | random is undefined
[1, 2, 3] | reject('gt', 1) | list
missing | reject('odd') | list
[1, 2] | reject('nothing_known') | list
[{'r': 1}, {'r': 2}] | rejectattr('r', 'odd') | list
[{'a': {'b': 1}}, {'a': {}}] | rejectattr('a.b') | list
'aaa' | replace('a', 'b', 0)
'aaa' | replace('a', 'b', -1)
'aaa' | replace('aa', 'b')
'aXa' | replace(old='X', new='Y')
[1, 2] | replace(', ', '-')
'' | reverse
{'a': 1, 'b': 2} | reverse | list
5 | reverse
-42.55 | round(1)
1.005 | round(2)
2.675 | round(2)
1e20 | round
12345.678 | round(-2)
'x' | round
2.5 | round(0, 'ceil')
-2.5 | round(0, 'floor')
2.5 | round(method='nothing')
1.15 | round(1, 'floor')
5 | round(2)
5 | round | string
2.0 | round | string
5 | safe
none | safe
'abc' | select | list
{'a': 0, 'b': 1} | select | list
[1, 2] | select('none') | list
[none, 1] | select('none') | list
['a', 'B'] | select('upper') | list
[1, 2, 3] | select('in', [1, 3]) | list
[1, 2, 3, 4] | select('>', 2) | list
[{'a': 1}, {'b': 2}] | selectattr('a', 'undefined') | list
[{'a': 1}, {'a': none}] | selectattr('a', 'none') | list
[{'a': 'x'}] | selectattr('a', 'eq', 'x') | list
[{'a': 1}] | selectattr | list
[[1, 2], [3, 4]] | selectattr(0, 'odd') | list
'abc' | slice(2) | list
[1, 2] | slice(0) | list
[] | slice(2) | list
[1, 2, 3] | slice(slices=2, fill_with=0) | list
[] | sort
[2.5, 1] | sort
[[2, 1], [1, 9]] | sort
['ä', 'z', 'a'] | sort
[{'a': {'b': 2}}, {'a': {'b': 1}}] | sort(attribute='a.b')
[{'a': 1}, {}] | sort(attribute='a')
range(3) | sort(reverse=true)
1.5 | string
missing | string
{'a': none} | string
[] | string
'a&lt;b' | striptags
'a <b' | striptags
'<br>\n x\n\ny' | striptags
5 | striptags
['a', 'b'] | sum
[[1], [2]] | sum(start=[])
[true, true] | sum
missing | sum
'a.b c_d' | title
'ÉCOLE a\tb' | title
'o\'neil "x"' | title
none | title
true | tojson
'x' | tojson | length
{'a': missing} | tojson
1e400 | tojson
'\x7f\x1f\ud7ff' | tojson
{true: 1} | tojson
{'a': {'b': []}} | tojson(indent=1)
[[], {}] | tojson(indent=2)
[1, [2]] | tojson(indent=2, separators=(',', ':'))
{2: 1, 1: 2} | tojson(sort_keys=true)
'x' | tojson(ensure_ascii=true, sort_keys=true)
(1, (2,)) | tojson(indent=1)
1 | tojson(indent=2)
'ab' | trim('a')
'abc' | trim(chars='ac')
'\u00a0a\u2003' | trim
'' | truncate(5)
'abcdefghij' | truncate(4)
'abcdefghij' | truncate(3, true, '')
'hello world foo' | truncate(length=11, leeway=0)
'hello' | truncate(2)
'hello world' | truncate(5, end='', leeway=0)
none | truncate(2)
[] | unique | list
'aAb' | unique | list
[{'a': 'x'}, {'a': 'X'}] | unique(attribute='a') | list
[{'a': 'x'}, {'a': 'X'}] | unique(case_sensitive=true, attribute='a') | list
none | upper
'ß' | upper
5 | urlencode
'/a~b-c_d.e' | urlencode
'%' | urlencode
none | urlencode
'a+b&c' | urlencode
{} | urlencode
'' | urlize
'http://a.b.c/x.' | urlize
'http://x' | urlize
'it\'s one-two' | wordcount
5 | wordcount
'a  b' | wordcount
'a b c' | wordwrap(1)
'abcdef' | wordwrap(2)
'a-b-c d' | wordwrap(3)
'a-b-c d' | wordwrap(3, break_on_hyphens=false)
'foo\n\nbar' | wordwrap(5)
'' | wordwrap(5)
{} | xmlattr
[1] | xmlattr
{'a': '<>&"\''} | xmlattr
{'a': missing} | xmlattr
{'a': true} | xmlattr
'a' | upper | lower | title
'a'|upper
('a' ~ 'b') | upper
[1, 2] | map('abs') | list | length
-1 | abs
1 + -1 | abs
2 | string + 'x'
'abc' | upper[0]
'abc' | upper.lower()
5 | default(0) + 1
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
none is boolean
'' is boolean
0 is boolean
messages.append is callable
'x'.upper is callable
joiner is callable
dict is callable
raise_exception is callable
'x' is callable
none is defined
missing is not defined
(missing or 1) is defined
messages[0].role is defined
messages[0]['nope'] is defined
messages[-9] is defined
7 is divisibleby 0
7.5 is divisibleby 2.5
1 is eq true
'a' is eq('a')
none is eq none
[1] is eq [1]
missing is eq missing
1 is ne '1'
'a' is lt 'b'
2 is le(2)
1 is gt 2
1 is ge 1.0
1 is greaterthan 0
1 is lessthan 0
none is escaped
2.0 is even
2.5 is even
3.0 is odd
true is odd
none is false
'' is false
false is not false
1 is false
none is true
'a' is true
'e' is filter
'tojson' is filter
none is float
true is float
'1.0' is float
1e3 is float
1 is in []
1 is in missing
none is in [none]
'ab' is in ['abc']
'' is in 'abc'
1 is in (1, 2)
1 is in range(3)
1.0 is in [1]
'x' is in missing
false is integer
'1' is integer
none is integer
none is iterable
missing is iterable
1.5 is iterable
true is iterable
(1, 2) is iterable
range(2) is iterable
{'a': 1}.items() is iterable
dict is iterable
'' is lower
'a1' is lower
5 is lower
none is lower
'ß' is lower
'' is upper
'A1' is upper
5 is upper
none is mapping
'a' is mapping
messages[0] is mapping
messages is mapping
missing is mapping
{'a': 1}.items() is mapping
missing is none
0 is none
'' is none
none is not none
none is number
missing is number
false is number
2.5 is number
none is sameas false
1 is sameas 1.0
'a' is sameas 'a'
false is sameas false
messages is sameas messages
none is sequence
(1,) is sequence
true is sequence
none is string
missing is string
'' is string
('<a>' | safe) is string
1.5 is string
'defined' is test
'==' is test
none is undefined
none is not undefined
missing.a is undefined
messages[0].nope is undefined
1 is odd and 2 is even
not 1 is even
1 is not odd
1 is odd or missing
'a' is string and 'a' is not mapping
(1 is odd) is boolean
1 is divisibleby(1) and true
messages is iterable and messages is not string and messages is not mapping
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
'abc'.translate({97: 'x', 98: none, 99: 100})
'abc'.translate({})
'abc'.translate({97: 'long'})
'abc'.translate(none)
'abc'.upper
'abc'.upper is defined
'abc'.nothing is defined
messages[0].items is defined
messages[0].keys is defined
messages[0].nothing is defined
1 if messages[0].items else 2
1 if {}.items else 2
1 if 'a'.strip else 2
{'items': 1}.items() | list
{'items': 1}.items is number
{'get': 1}.get('get')
{'keys': 1}.keys() | list
{'a': 1}.items | length
{'a': {'items': {'type': 'x'}}}.a['items'].type
{'a': {'items': {'type': 'x'}}}.a.items.type
'ab'.center(7, 'xy')
'ab'.center(-1)
'ab'.ljust(1)
'ab'.rjust(5, '0')
'5'.zfill(0)
'+5'.zfill(4)
''.zfill(2)
'banana'.count('a', -3)
'banana'.count('a', 0, -1)
'banana'.count('', 2, 4)
'äää'.count('ä', 1)
''.count('')
'abc'.count()
'abc'.endswith('')
'abc'.endswith('c', -1)
'abc'.endswith(())
'abc'.endswith(['c'])
'abc'.endswith('abcd')
'abc'.startswith('')
'abc'.startswith('c', 2)
'abc'.startswith('', 4)
'abc'.startswith(none)
'a\t\tb\n\tc'.expandtabs(3)
'a\tb'.expandtabs(0)
'a\tb'.expandtabs(tabsize=2)
'banana'.find('a', -2)
'banana'.find('')
'banana'.find('', 6)
'banana'.find('', 7)
'banana'.rfind('a', 0, 4)
'banana'.rfind('')
'banana'.rfind('x')
'banana'.rindex('x')
'banana'.index('a', 2)
'{:>{w}}|'.format('a', w=5)
'{:{f}{a}{w}}|'.format('a', f='*', a='^', w=7)
'{0:{1}.{2}f}'.format(3.14159, 8, 2)
'{:{}}|'.format('ab', 4)
'{a[b]}{c[0]}'.format(a={'b': 1}, c=[2])
'{a.b}'.format(a={'b': 1})
'{!s:>4}|{!r:<5}|{!a}'.format(1, 'x', 'é')
'{0}{}'.format(1, 2)
'{}'.format()
'{x}'.format(y=1)
'{'.format(1)
'}'.format(1)
'{:d}'.format('a')
'{:d}'.format(1.5)
'{:s}'.format(1)
'{:s}'.format('a')
'{:e}|{:E}|{:g}|{:G}|{:%}|{:n}'.format(12345.678, 0.00012, 1e-5, 1e20, 0.256, 1234)
'{:.3}|{:.3g}|{:.0f}|{:.1e}'.format(3.14159, 1234567.0, 2.5, 0.0)
'{:+}|{: }|{:-}'.format(1, 2, -3)
'{:#x}|{:#b}|{:#o}|{:X}|{:b}|{:o}|{:c}'.format(255, 5, 8, 255, 5, 8, 65)
'{:08.3f}|{:+08d}|{:=+8d}|{:x<8d}'.format(-3.14159, 42, 42, 42)
'{:_}|{:,.2f}|{:_x}'.format(1234567, 1234567.891, 1048576)
'{:^7}|{:>7}|{:<7}|{:7}|{:7}|'.format('ab', 'ab', 'ab', 'ab', 12)
'{:.2}|{:5.1}|'.format('abc', 'abc')
'{}|{}|{}|{}'.format(none, true, [1, 'a'], {'a': (1,)})
'{:>5}|{:>6}|'.format(true, none)
'{:5}|'.format(true)
'{:5}|'.format(none)
'{:>8}'.format([1])
'{{{}}}'.format(1)
'{:%Y}'.format(1)
'{:1.}'.format(1)
'{:q}'.format(1)
'{0[1]}'.format('ab')
'{-1}'.format(1)
'{:}'.format(1.0)
'{:10}|{:<10}|'.format(1.5, 1.5)
'{:,}'.format(-1234.5)
'{:é>4}'.format('x')
'a1'.isalnum()
''.isalnum()
'ª'.isalpha()
'a b'.isalpha()
'²'.isdecimal()
'²'.isnumeric()
'٣'.isdecimal()
''.isascii()
''.isdigit()
'for'.isidentifier()
''.isidentifier()
'é1_'.isidentifier()
''.islower()
'1'.islower()
''.istitle()
'A B'.istitle()
'A1b'.istitle()
''.isprintable()
'\u200b'.isprintable()
'\u00a0'.isprintable()
'\x1c'.isspace()
'\u200b'.isspace()
'\u3000'.isspace()
''.isupper()
'ǅ'.isupper()
','.join([])
','.join({'a': 1, 'b': 2})
','.join(('a',))
','.join(none)
''.join(['a', none])
', '.join(messages | map(attribute='role'))
'ÀÉ'.lower()
'İ'.lower() | length
'ß'.upper()
'ß'.casefold()
'ﬁ'.upper()
'ΑΣ'.lower()
'ß'.capitalize()
'ÉCOLE'.capitalize()
'ß'.swapcase()
'a.b_c d-e'.title()
'x1y'.title()
"they're bill's".title()
'  a'.lstrip('')
'aab'.lstrip('a')
'\x1ca\x1f'.strip() | length
'\u200ba'.strip() | length
'abc'.strip(1)
'a-b'.partition('')
'a--b'.partition('--')
'a-b-c'.rpartition('x')
'abc'.partition()
'aaa'.removeprefix('a')
'aaa'.removesuffix('aaaa')
'aaa'.replace('a', 'b', 0)
'aaa'.replace('a', 'b', -1)
'abc'.replace('', '-', 2)
'aaa'.replace('a')
'aaa'.replace('a', 1)
'a,b,,c'.split(',')
',a,'.split(',')
'a,b'.split(',', 0)
' a b '.split(' ')
'  '.split()
'  '.split(' ')
'a b c'.split(none, 0)
'a\u00a0b\u3000c'.split()
'a\x1cb'.split()
'a b'.split(sep=none)
'a,b'.split(',', '1')
'abc'.split('abc')
'abc'.split('b', maxsplit=1)
'a<>b<>c'.split('<>')
'a,b,c'.rsplit(',', 0)
' a b c '.rsplit(none, 2)
'a,b,c'.rsplit(maxsplit=1, sep=',')
''.rsplit()
'a\x0bb\x0cc\x1cd\x85e\u2028f'.splitlines()
'\n\n'.splitlines()
''.splitlines()
'a\r'.splitlines(true)
'a\r\nb'.splitlines(keepends=false)
{'a': 1}.get()
{'a': none}.get('a', 2)
{1: 'x'}.get(1)
{1: 'x'}.get(1.0)
{'a': 1}.get('a', default=2)
{}.keys()
{}.values() | list
{}.items() | list
{'a': 1}.keys() | length
{'a': 1}.keys() | join
{'a': 1, 'b': 2}.values() | sum
{'a': 1, 'b': 2}.values() | max
{'a': 1}.items() | first
'a' in {'a': 1}.values()
1 in {'a': 1}.values()
('a', 1) in {'a': 1}.items()
{'a': 1}.copy().a
{'a': 1}.setdefault('a', 2)
{'a': 1}.popitem()
{'a': 1}.clear()
{'b': 1, 'a': 2}.items() | sort
[1, 2, 3].index(3)
[1, 2, 1].index(1, 1)
[1, 2, 1].index(1, 1, 2)
['a'].count('b')
[1, 1.0, true].count(1)
[1].copy() + [2]
[3, 1].sort()
[1].reverse()
[1].insert(0, 2)
[1].remove(1)
[1].clear()
[1].extend([2])
(1, 2, 1).index(1, 1)
(1, 2).copy()
(1, 2).nothing()
range(3)[1]
range(3)[-1]
range(5)[1:3] | list
'abc'.__len__()
'a'.format_map({'a': 1})
'{a}'.format_map({'a': 1})
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
+1
+1.5
-+1
+-1
2 - +1
2 + +1
+'a'
+(1 + 2) * 3
[+1, -1]
- -1
--1
not not 1
not 1 == 2
-2 ** 2
2 ** -2
-2 ** -2
2 ** 3 ** 2
2 ** 64
10 ** 20
2 ** 0
0 ** 0
2.0 ** 3
true + true
true * 3
false - 1
1 + true
1 - 'a'
1 + 'a'
'a' + 1
'a' - 'b'
'a' * -1
3 * 'ab'
2 * [1]
[1] * 'a'
(1, 2) * 2
[1] + (2,)
none + 1
none ~ none
1 ~ 2 + 3
'a' ~ 'b' * 2
7 // 2.0
7.5 // 2
-7.5 // 2
7 // -2
7 % -4
-7 % -4
7 % 2.5
-7.5 % 2
1 % 0
1.0 / 0
0 / 5
5 / 2
4 / 2
1 / 3
10 / 4 * 2
1e308 * 10
1e308 * 10 - 1e308 * 10
9007199254740993
123456789012345678901234567890
123456789012345678901234567890 + 1
-123456789012345678901234567890
0x1F
0b101
0o17
0XfF
1_000.5
1e3
1E-3
1.5e+3
.5
00
'\U0001F600'
'\u00e9\x41\101\0'
'\a\b\f\v\n\r\t'
'\/\e\ '
'\\n'
"\"'"
'\'"'
'\x4'
'\u12'
"a" 'b' "c"
'a' 'b' | upper
''
[]
{}
()
(,)
[1,]
(1,)
(1)
((1))
{'a': 1,}
{1: 2, 'b': [], none: 1.5}
{'a': 1, 'a': 2}
{1: 'a', 1.0: 'b'}
{'a' ~ 'b': 1}
{messages[0].role: 1}
[[], [[]], {}]
[1, 2][0]
[1, 2][true]
[1, 2]['a']
[1, 2][-3]
[1, 2].0
[[1, 2]][0][1]
'abc'[1]
'abc'[-4]
'abc'[1:2]
'abc'[:-1]
'abc'[::2]
'abc'[5:]
'abc'[2:1]
'abc'[::0]
'äöü'[1:]
[1, 2, 3][-1:]
[1, 2, 3][5:]
[1, 2, 3][none:2]
(1, 2, 3)[::-1]
5[0]
none[0]
none.a
missing[0]
missing()
messages()
messages[0]()
'a'()
1 == true
1 == '1'
none == false
'a' == 'a'
[1, 2] == (1, 2)
{'a': 1} == {'a': 1.0}
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
1 != 1.0
'a' != none
1 < 2.5
'a' < 'B'
'abc' < 'abd'
[1] < [1, 0]
(1, 2) < (1, 3)
true < 2
1 <= 1 < 2 != 3
1 == 1 == 1
1 < 3 > 2
1 in [1] in [[1]]
'a' in 'abc' == true
1 in {1: 2}
'a' in {'a': none}
none in [none]
'' in ''
1 in 5
1 in none
1 in missing
'a' not in 'abc'
not 'a' in 'abc'
'a' in messages[0]
'role' in messages[0]
1.0 in [1]
true in [1]
1 and none
none and 1
'' and 1
'a' and 'b'
1 or 2
none or ''
0 or none or 'x' or 'y'
not none
not missing
not 0.0
not '0'
not [0]
not {}
not ()
missing or 'x'
missing and 'x'
missing == 1
missing != missing
missing ~ missing
missing * 2
-missing
missing is defined or 'x'
missing in [1]
missing | default('a') ~ 'b'
'a' if 1
'a' if 0
('a' if 0) ~ 'b'
'a' if 0 else 'b' if 0 else 'c'
'a' if missing else 'b'
1 if 2 if 0 else 3 else 4
1 + 2 if true else 3
'x' ~ (1 if false else 2)
true if true else false
range(0) | list
range(3, 0) | list
range(0, 10, 3) | list
range(10, 0, -3) | list
range(1.5) | list
range('a') | list
range(0, 5, 0) | list
range() | list
range(1, 5, 2) | join(',')
range(100001) | length
dict()
dict(a=1)
dict({'a': 1}, b=2)
dict([['a', 1]])
dict(a=dict(b=1)).a.b
dict(1)
dict(**{'a': 1})
namespace(a=1, b='x').b
namespace({'a': 1}).a
namespace(a=1)['a']
namespace(a=1).c
namespace(a=1).c is defined
cycler(1, 2).current
cycler()
joiner()()
joiner('|')() ~ 'x'
range is defined
loop
caller
varargs
undefined
true.a
True and not False
TRUE
None
null
nil
messages[0] == messages[0]
messages[0]['content'][0]
messages[0].content[1:3]
(messages | first).role
messages | map(attribute='role') | unique | join(',')
messages[1:] | map(attribute='role') | list
messages[::-1] | map(attribute='role') | list
messages | length > 2
messages | length + 1
messages|length == 3 and messages[0]['role'] == 'system'
(messages | selectattr('role', 'ne', 'system') | list)[0].role
messages | rejectattr('role', 'in', ['system']) | map(attribute='role') | join('/')
messages[0] | dictsort
messages[0] | items | list
messages[0].items() | list
messages[0].values() | list
messages[0].get('name', 'x')
messages[0].get('role')
messages[0] | length
messages[0] | list
messages | string | length
messages[2].content | striptags
messages[1].content.strip().split()
messages[1].content | trim | replace('\t', ' ')
'%s %s' % (1, 2)
'%s' % (1,)
'%s' % [1, 2]
'%(a)s' % {'a': 1}
'%d%%' % 5
'%s %s' % 'a'
'%d' % 'a'
'%5s|%-5s|' % ('a', 'b')
'%05d' % -3
'%.2f' % 1
'%x' % 255
'%c' % 'a'
'%r' % 'a'
'%s' % none
'%e' % 1
raise_exception()
raise_exception('a' ~ 1)
strftime_now()
strftime_now('')
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
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}",
    "{% macro m(a, b=a ~ 'x', c=b) %}{{ a }}|{{ b }}|{{ c }}{% endmacro %}{{ m(1) }};{{ m(1, 2) }};{{ m(1, c=3) }}",
    "{% set x = 5 %}{% macro m(a=x) %}{{ a }}{% endmacro %}{{ m() }}{% set x = 6 %}{{ m() }}",
    "{% macro m(a=missing) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(1) }}{{ m(missing) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}{{ messages | length }}{% endmacro %}{{ m() }}",
    "{% macro m() %}  a  {% endmacro %}[{{ m() | trim }}]{{ m() | length }}",
    "{% macro m(a) %}{% set a = a + 1 %}{{ a }}{% endmacro %}{{ m(1) }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}x{% endmacro %}{{ a() }}",
    "{% macro m(role='x', content=none) %}{{ role }}{{ content }}{% endmacro %}{{ m(**messages[0]) }}{{ m(*['a', 'b']) }}",
    "{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}x{% endcall %}",
    "{% for x in [1, 2] %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% call(a, b=2) m() %}x{% endcall %}",
    "{% for x in 5 %}x{% endfor %}",
    "{% for x in {'a': 1}.items() %}{{ x[0] }}{{ x[1] }}{% endfor %}",
    "{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{% endfor %}",
    "{% for k, v in {'a': 1} %}{{ k }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for x in [3, 1, 2] | sort %}{{ x }}{% endfor %}",
    "{% for x in range(3) if x %}{{ loop.index }}{{ loop.length }}{{ x }};{% else %}e{% endfor %}",
    "{% for x in [1, 2, 3] if x > 5 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.index }}{{ loop.first }}{% endfor %}{{ loop.last }}{% endfor %}",
    "{% for x in [1, 2] %}{% set outer = loop %}{% for y in [3] %}{{ outer.index }}{% endfor %}{% endfor %}",
    "{% for x in [1] %}{% for y in [2] %}{{ loop.depth }}{% endfor %}{% endfor %}",
    "{% for x in 'ab' %}{{ x }}{{ loop.nextitem }}{% endfor %}{{ x is defined }}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop.cycle('odd', 'even') }}{% endfor %}",
    "{% for x in [] %}{% else %}{{ loop is defined }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{% if loop.first %}[{% endif %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{% if x is odd %}{% continue %}{% endif %}{{ x }}{% if x > 3 %}{% break %}{% endif %}{% else %}e{% endfor %}",
    "{% for item in [{'n': 1, 'c': [{'n': 2}]}] recursive %}{{ item.n }}{{ loop(item.c) if item.c }}{% endfor %}",
    "{% for x in messages[1:] + [{'role': 'z'}] %}{{ x.role }}{% endfor %}",
    "{% for m in messages | reverse %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% if loop.index0 is divisibleby 2 %}{{ m.role }}{% endif %}{% endfor %}",
    "{% for i in range(messages | length) %}{{ messages[i].role[0] }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x * 3 %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a = [1] %}{% set ns.a = ns.a + [2] %}{{ ns.a }}{{ ns.b is defined }}",
    "{% set ns = namespace(d={}) %}{% set ns.d = dict(ns.d, **{'k': 1}) %}{{ ns.d }}",
    "{% set d = {'a': 1} %}{% set d.b = 2 %}{{ d }}",
    "{% set d = {'a': 1} %}{% set d['b'] = 2 %}{{ d }}",
    "{% set a = b = 1 %}{{ a }}",
    "{% set a, b = [1, 2] %}{{ a }}{{ b }}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set a, b = 1 %}{{ a }}",
    "{% set x = 'a' if false %}[{{ x }}]",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}{% for i in [1, 2] %}{{ i }}{% endfor %}{% endset %}[{{ x }}]",
    "{% set x | trim | upper %} a {% endset %}[{{ x }}]",
    "{% set x = x | default('d') %}{{ x }}",
    "{% set _ = [1].append(2) %}{{ _ }}",
    "{% if 1 %}a{% endif %}{% if 0 %}b{% elif 1 %}c{% else %}d{% endif %}",
    "{% if '' or [] or {} or 0 or 0.0 or none or missing or () or range(0) %}y{% else %}n{% endif %}",
    "{% if '0' and [0] and {'a': 0} and -1 and (0,) and range(1) %}y{% else %}n{% endif %}",
    "{% if messages and messages[0].role == 'system' and not messages[0].content is none %}y{% endif %}",
    "{% if messages[0].role in ('system', 'developer') %}y{% endif %}",
    "{% if not messages %}y{% elif messages is string %}s{% else %}n{% endif %}",
    "{% if messages[0].items %}y{% else %}n{% endif %}",
    "{% if a.b is defined %}y{% else %}n{% endif %}",
    "{% if messages[0].a.b %}y{% else %}n{% endif %}",
    "{% if messages[9].role %}y{% else %}n{% endif %}",
    "{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a is defined }}",
    "{% filter trim | upper %} a {% endfilter %}",
    "{% filter replace('a', 'b') %}aaa{% endfilter %}",
    "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% raw %}{% if %}{{ x {% endraw %}",
    "{%- raw -%}  a  {%- endraw -%}  b",
    "{# a #}{#- b -#}  c  {#- d #}",
    "a {#- x -#} b",
    "{# {{ x }} {% if %} #}a",
    "  {# x #}\n  a\n",
    "a\n{% if true %}\nb\n{% endif %}\nc",
    "a\n  {% if true %}  \nb{% endif %}  \nc",
    "a{% if true %}\n\nb{% endif %}",
    "{% if true -%}  \n a {%- endif %} b",
    "{{ 'a' -}}  \n  {{- 'b' }}",
    "\n\n{{ 'a' }}\n\n",
    "{{ '\n' }}a\n",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc",
    "\t{% if true %}x{% endif %}\t\n",
    "a {%+ if true +%} b {%+ endif +%} c\n",
    "{%- for x in [1, 2] -%} {{ x }} {%- endfor -%} z",
    "{% for x in [1, 2] %}\n{{ x }}\n{% endfor %}\n",
    "{% for x in [1, 2] -%}\n  {{ x }}\n{%- endfor %}",
    "{%if true%}a{%endif%}{{1}}{{'b'}}",
    "{%\n if\n true\n %}a{%\nendif\n%}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {'b': 1}}.a.b }}{{ {'a': 1}['a'] }}",
    "{{ '{{' }}{{ '}}' }}{{ '{%' }}",
    "{{ \"a'b\" }}{{ 'a\"b' }}",
    "{{ 1 }}{{ 1.50 }}{{ true }}{{ none }}{{ missing }}{{ [none, missing] }}",
    "{{ [missing] }}",
    "{{ {'a': missing} }}",
    "{{ messages[0].content ~ eos_token }}{{ bos_token + messages[0]['content'] }}",
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}",
    "{% autoescape false %}{{ '<' }}{% endautoescape %}",
    "{% trans %}a{% endtrans %}",
    "{% debug %}",
    "{% block a %}{{ 1 }}{% endblock a %}",
    "{% block a scoped %}{{ 1 }}{% endblock %}",
    "{% block a %}x{% endblock %}{% block a %}y{% endblock %}",
    "{% block a %}{{ super() }}{% endblock %}",
    "{% break %}",
    "{% continue %}",
    "{% else %}",
    "{% nothing_known %}",
    "{{ }}",
    "{{ 1 2 }}",
    "{{ 'a }}",
    "{{ a. }}",
    "{{ a | }}",
    "{{ a is }}",
    "{% set %}",
    "{% set 1 = 2 %}",
    "{% set none = 2 %}",
    "{% set true = 1 %}{{ true }}",
    "{% for in [1] %}{% endfor %}",
    "{% for x [1] %}{% endfor %}",
    "{% if %}{% endif %}",
    "{% if 1 %}",
    "{% macro %}{% endmacro %}",
    "{% macro m(1) %}{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% raw %}a",
    "{# a",
    "{{ a",
    "{{ (1, 2 }}",
    "{{ [1 }}",
    "{{ f(a=1, 2) }}",
    "{{ 1 if }}",
    "{{ 'a'|nothing_known }}",
    "{% if false %}{{ 'a'|nothing_known }}{% endif %}x",
    "{% if false %}{{ 1 is nothing_known }}{% endif %}x",
    "{% if false %}{{ missing.a.b.c }}{% endif %}x",
    "{{ missing_function() }}",
    "{{ messages.nothing() }}",
    "{{ (missing.a).b }}",
    "{{ messages[0]['a']['b'] }}",
    "{% for m in messages.nothing %}x{% endfor %}y",
    "{% set x = messages[0].nothing.deep %}",
    "{{ ''.join(messages | map(attribute='role')) }}",
    "{{ messages | map(attribute='content') | map('length') | sum }}",
    "{{ messages | groupby('role') | map(attribute='grouper') | list }}",
    "{{ messages | groupby('role') | length }}",
    "{% for role, ms in messages | groupby('role') %}{{ role }}{{ ms | length }}{% endfor %}",
    "{{ messages | tojson(indent=2) | length }}",
    "{{ messages[0] | tojson | replace('\"', \"'\") }}",
    "{{ range(3) | map('string') | join(',') }}",
    "{{ [1, 2, 3] | select('odd') | map('string') | join }}",
    "{{ ['a', 'b'] | map('upper') | list | tojson }}",
    "{{ {'a': [1, 2]} | tojson }}{{ 'x' | tojson }}{{ [] | tojson }}",
    "{{ messages | map(attribute='role') | map('capitalize') | join(' ') }}",
    "{{ [[1, 2], [3]] | map('first') | list }}{{ [[1, 2], [3]] | sum(start=[]) }}",
    "{{ '%s' | format('a') | upper }}{{ '{}'.format('b') | upper }}",
    "{{ loop_messages | default(messages) | length }}",
    "{{ cycler('a', 'b', 'c').next() }}{{ joiner('x')() }}",
    "{% set c = cycler('a', 'b') %}{% for x in [1, 2, 3] %}{{ c.next() }}{% endfor %}",
    "{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }}c",
    "{{ (1, 2) | first }}{{ (1, 2)[1] }}{{ (1, 2) == (1, 2) }}",
    "{% set content = 'a</think>b' %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ content }}",
    "{% set content = messages[1].content %}{{ content.split('\\n')[0].lstrip() }}|{{ content.rstrip('\\n') }}",
    "{{ '\\n'.join(['a', 'b']) }}{{ 'a\\nb'.splitlines() | length }}",
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}{{ messages[ns.last].role }}",
    "{% for m in messages %}{% set content = m.content if m.content is string else '' %}{{ content | length }},{% endfor %}",
    "{% macro render(m) -%}\n  {{- m.role -}}\n{%- endmacro %}[{{ render(messages[0]) }}]",
    "{%- set date = strftime_now('%d %b %Y') -%}{{ date }}",
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content']|trim -%}{%- set rest = messages[1:] -%}{%- else -%}{%- set system = '' -%}{%- endif -%}{{ system }}{{ rest | length }}",
    "{{ raise_exception('Conversation roles must alternate') if messages[0].role == 'user' else 'ok' }}",
    "{{ 'a\\\nb' }}",
    "{{ 'a\nb' }}",
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
            # Half of a surrogate pair is no text.
            expect.encode()
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
