import importlib.metadata
import logging

import pytest

from rollmill.verifiers.math_equality import MathVerifier


def test_version_belongs_to_one_release_of_math_verify():
    versions = (MathVerifier().version, importlib.metadata.version("math-verify"))
    assert versions == ("2", "0.9.0"), "another math-verify judges otherwise: raise the verifier's version"


@pytest.mark.parametrize(
    ("truth", "completion", "right"),
    [
        (r"\frac{1}{2}", "So it is $0.5$.", True),
        (r"\frac{1}{2}", r"first $3$, then \boxed{\frac12}", True),
        ("1/2", "<answer>0.5</answer>", True),
        ("x^2+2x+1", "<answer>(x+1)^2</answer>", True),
        ("x^2+1", "<answer>x^2-1</answer>", False),
        ("$x^2+1$", r"<answer>\boxed{1+x^2}</answer>", True),
        ("(0,1)", "<answer>[0,1]</answer>", False),
        (r"\{1,2\}", r"<answer>\{2,1\}</answer>", True),
        ("1.5e3", "<answer>1500</answer>", True),
        ("1000", "<answer>1,000</answer>", True),
        ("5", "<answer>x=5</answer>", True),
        ("7", "the answer is 8", False),
        (r"\text{Tuesday}", r"\boxed{\text{Tuesday}}", True),
    ],
)
def test_mathematics_is_compared(make_problem, truth, completion, right):
    verdict = MathVerifier().verify(make_problem(truth), completion)
    assert (verdict.status, verdict.success, verdict.distance) == ("ok", right, float(not right))
    assert verdict.answer


@pytest.mark.parametrize(
    ("truth", "same", "other"),
    [
        (
            r"3\sqrt{7}",
            ["3√7", "3*sqrt(7)", "The length is 3√7 cm.", r"$\sqrt{63}=3\sqrt{7}$ units"],
            ["√7", "3√7 or 3√5"],
        ),
        (r"\frac{5\pi}{6}", ["5π/6", "5*pi/6", "5pi/6"], ["6π/5", "150°"]),
        ("x^{12}-3x", ["x**12 - 3*x", "x^12-3x", "x¹² − 3x"], ["x^1 2-3x", "x^12+3x"]),
        (
            r"(-\infty,4)\cup[9,\infty)",
            ["x < 4 or x >= 9", "(-∞,4) ∪ [9,∞)", "[9,∞) ∪ (-∞,4)"],
            ["x < 4 or x > 9", "y"],
        ),
        ("[-3,8)", ["-3 ≤ x < 8", "8 > t >= -3", r"x \in [-3,8)"], ["-3 < x < 8", "[-3,8]", "8", "-3"]),
        ("(-4,9)", ["(x,y) = (-4, 9)", "x = -4, y = 9"], ["(y,x) = (-4, 9)", "[-4,9]", "(9,-4)"]),
        (
            r"\begin{pmatrix}5\\6\end{pmatrix}",
            [r"\begin{bmatrix} 5 \\ 6 \end{bmatrix}"],
            [r"\begin{pmatrix}6\\5\end{pmatrix}"],
        ),
        ("2,5,9", ["x = 2, 5, or 9", r"$\boxed{2}$, $\boxed{5}$ and $\boxed{9}$"], ["x = 2 or 5"]),
        (r"\frac{7}{11}", [r"0.\overline{63}", "0.(63)", "0.636363..."], ["0.63", r"0.6\overline{3}"]),
        (r"\frac{2}{3}", ["two thirds"], ["one third"]),
        ("4a-9b", ["-9b+4a"], ["9b-4a"]),
        ("GT-AX 71", ["gt-ax 71"], ["GT-XA 71", "TG-AX 71"]),
        ("4.11.2", ["v4.11.2", "version 4.11.2"], ["4.11.20"]),
        ("30", ["$30"], ["$30-$40", "30-", "$30 and $40"]),
        ("[3,8]", ["[3, 8]"], ["3", "8"]),
        (
            "Odile",
            ["So Odile has the highest score.", "The winner is Odile."],
            ["The winner is not Odile.", "Odile is behind Ana."],
        ),
        ("a parabola", ["The graph is a parabola.", "parabola", "the parabola"], ["The graph is not a parabola."]),
        ("[-1,6)", ["D = [-1,6)", "[-1,6)."], ["D = [-1,6]"]),
        (
            r"\frac{\sqrt{3}}{2}",
            [r"\sin 60^\circ = \frac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{2}."],
            [r"\sqrt{2} = \frac{\sqrt{3}}{2}"],
        ),
        (
            "14",
            [
                r"\binom{14}{1} = 14",
                "f(5) = 14",
                r"\sum_{k=1}^{4} (k+1) = 14",
                "x_1 + x_2 = 14",
                r"P(7) = 2 \cdot 7 = 14",
            ],
            ["13 = 14", r"\sqrt{169} = 14"],
        ),
        ("May 12", ["12 May", "12th of May"], ["May 21"]),
    ],
)
def test_many_notations_of_one_value_are_equal(make_problem, truth, same, other):
    verifier = MathVerifier()
    tagged = {
        text: verifier.verify(make_problem(truth), f"<answer>{text}</answer>").success for text in (*same, *other)
    }
    assert tagged == {**dict.fromkeys(same, True), **dict.fromkeys(other, False)}


def test_first_reading_has_its_own_version(make_problem):
    verifier = MathVerifier(answer="first")
    verdict = verifier.verify(make_problem("7"), "<think><answer>7</answer></think><answer>8</answer>")
    assert (verdict.verifier, verdict.success) == ("math@2-first", True)


def test_one_of_several_ground_truths_is_enough(make_problem):
    several = make_problem("1/2").model_copy(update={"equivalent_answers": (r"\sqrt{2}",)})
    completions = ["<answer>0.5</answer>", r"\boxed{\sqrt2}", "<answer>2</answer>"]
    assert [MathVerifier().verify(several, text).success for text in completions] == [True, True, False]


@pytest.mark.parametrize(
    ("prompt", "completion", "right"),
    [
        ("Find all roots.", "<answer>2, 3</answer>", True),
        ("Sort the numbers.", "<answer>2, 3</answer>", False),
        ("Sort the numbers.", "<answer>3, 2</answer>", True),
    ],
)
def test_problem_text_decides_whether_order_matters(make_problem, prompt, completion, right):
    problem = make_problem("3, 2").model_copy(update={"prompt": prompt})
    assert MathVerifier().verify(problem, completion).success == right


@pytest.mark.parametrize(
    "completion", ["", "I give up", "7 <answer></answer>", "<answer>I do not know</answer> it is 7"]
)
def test_no_mathematics_is_unparseable(make_problem, completion):
    verdict = MathVerifier().verify(make_problem("7"), completion)
    assert (verdict.status, verdict.distance) == ("unparseable", None)
    assert verdict.reason


def test_a_faulty_ground_truth_is_named(make_problem):
    verifier = MathVerifier()
    assert verifier.problem_fault(make_problem(None)) == "there is no answer"
    assert verifier.problem_fault(make_problem("7")) is None
    with pytest.raises(ValueError, match="p-1: there is no answer"):
        verifier.verify(make_problem(" "), "7")
    with pytest.raises(ValueError, match=r"p-1: answer '}{' is not mathematics"):
        verifier.verify(make_problem("}{"), "7")


def test_math_verify_has_no_time_limits_and_no_warnings(make_problem, caplog):
    with caplog.at_level(logging.WARNING):
        MathVerifier().verify(make_problem("7"), "7")
    assert caplog.text == ""
