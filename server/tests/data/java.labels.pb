


/pay		POST /payendpoint