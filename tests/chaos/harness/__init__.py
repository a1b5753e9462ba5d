"""The parts of the chaos runner: networks that can be cut, clusters, clients with an account, checkers."""
