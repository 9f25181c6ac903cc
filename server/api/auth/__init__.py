"""Signing in and one's own account over HTTP. Thin: what happens is in server/auth."""

from server.api.auth.account import AccountController
from server.api.auth.factors import FactorController
from server.api.auth.pages import AccountPages
from server.api.auth.sign_in import SignInController

CONTROLLERS: tuple[type, ...] = (SignInController, AccountController, FactorController, AccountPages)
