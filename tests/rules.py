"""Who may do what, said a second time: a rule that is weakened in a view fails in test_access.py."""

RULES = {
    "everybody": "light signin signin_link welcome signout healthz styleguide",
    "signed_in": "home account",
    "creators": "datasets:new datasets:sample datasets:draft datasets:preview datasets:backtests datasets:backtest"
    " datasets:backtest_progress datasets:backtest_delete datasets:backtest_json",
    "owners": "datasets:model datasets:model_forget",
    "read": "reviews:overview reviews:progress reviews:item reviews:guide",
    "review": "reviews:review reviews:next reviews:undo reviews:decide reviews:remark reviews:renew reviews:spot"
    " reviews:sample",
    "watch": "reviews:savings reviews:threshold_preview reviews:certificate reviews:certificate_json"
    " reviews:run reviews:run_json",
    "manage": "reviews:start reviews:pause reviews:resume reviews:cancel reviews:apply reviews:threshold"
    " reviews:export reviews:file reviews:draw reviews:discard reviews:look reviews:approve"
    " reviews:reject reviews:goal reviews:leave reviews:calibrate reviews:estimate reviews:raise_cap"
    " reviews:prompt reviews:trial reviews:whatif reviews:whatif_use reviews:whatif_json",
}
