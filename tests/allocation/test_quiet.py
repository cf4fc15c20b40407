import os

from mezzotint.allocation._quiet import quiet


def test_the_solvers_debug_lines_are_withheld_and_all_else_passes(capfd):
    os.write(1, b"before\n")
    with quiet():
        os.write(1, b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n")
        os.write(1, b"another thread\n")
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "before\nanother thread\nafter\n"
