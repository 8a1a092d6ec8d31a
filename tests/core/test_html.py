"""Pages: what templates are given is escaped, and what they lack is an error."""

import jinja2
import pytest

from hcsqc.core.html import render


def test_text_is_escaped(tmp_path):
    template = tmp_path / "page.html"
    template.write_text("<p>{{ name }}</p>")
    page = render(template, name="<script>alert('x & y')</script>")
    assert page == "<p>&lt;script&gt;alert(&#39;x &amp; y&#39;)&lt;/script&gt;</p>"


def test_a_filter_is_used_by_its_name(tmp_path):
    template = tmp_path / "page.html"
    template.write_text("{{ share | percent }}")
    assert render(template, filters={"percent": "{:.0%}".format}, share=0.25) == "25%"


@pytest.mark.parametrize("text", ["{{ study.nmae }}", "{% for row in rwos %}{% endfor %}"])
def test_a_template_that_asks_for_what_there_is_not_fails(text, tmp_path):
    template = tmp_path / "page.html"
    template.write_text(text)
    with pytest.raises(jinja2.UndefinedError, match="nmae|rwos"):
        render(template, study={"name": "s"}, rows=[])
